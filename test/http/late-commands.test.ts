import { expect, test } from 'vitest'
import type { ApiResponse, Run } from '../support/api.ts'
import { expectProblem, scripted, serve } from './setup.ts'

const { createRun, waitForRun, post } = await serve('postgres')

const ROUNDS = 8
const AT_ONCE = 4
const MOVED_ON = /^the run had moved on when the \w+ came to it: not possible in /
/** Where each request looks at the run before any of them has come to it. */
const atOnce = (path: string, body: object): Promise<ApiResponse[]> =>
  Promise.all(
    Array.from({ length: AT_ONCE }, (_, nth) =>
      post(path, body, { 'idempotency-key': `${path}-${nth}` }),
    ),
  )
const inADay = (): { run_at: string } => ({
  run_at: new Date(Date.now() + 86_400_000).toISOString(),
})
const failed = async (): Promise<Run> =>
  waitForRun((await createRun(scripted([{ step: 's' }, { think: 200 }, { fail: 'no' }]))).run_id)
const running = async (): Promise<Run> => {
  const { run_id } = await createRun(scripted([{ think: 600_000 }]))
  return waitForRun(run_id, { until: ({ status }) => status === 'running' })
}

const admin = '/api/v1/admin/agent-runtime'
test.each([
  {
    name: 'cancel',
    code: 'not_cancellable',
    made: () => createRun(scripted([], inADay())),
    path: ({ run_id }: Run) => `/runs/${run_id}/cancel`,
  },
  {
    name: 'cancel of a conversation',
    code: 'not_cancellable',
    made: () => createRun(scripted([], inADay())),
    path: ({ conversation_id }: Run) => `/conversations/${conversation_id}/agent-runs/cancel`,
  },
  {
    name: 'stop',
    code: 'not_cancellable',
    made: () => createRun(scripted([], inADay())),
    path: ({ run_id }: Run) => `${admin}/runs/${run_id}/stop`,
  },
  {
    name: 'resume',
    code: 'not_resumable',
    made: failed,
    path: ({ run_id }: Run) => `/agent-runs/${run_id}/resume`,
  },
  {
    name: 'recycle',
    code: 'not_stuck',
    made: running,
    path: ({ run_id }: Run) => `${admin}/runs/${run_id}/recycle`,
    body: { force: true },
  },
])('$name: what comes too late is a 409, however late', async ({ name, code, ...one }) => {
  const { made, path, body = {} } = one
  let late = 0
  for (let round = 0; round < ROUNDS; round += 1) {
    const run = await made()
    const answers = await atOnce(path(run), body)

    expect(answers.filter(({ status }) => status === 202)).toHaveLength(1)
    for (const [nth, answer] of answers.entries()) {
      const again = await post(path(run), body, { 'idempotency-key': `${path(run)}-${nth}` })
      expect(again.status).toBe(answer.status)
      if (answer.status === 202) continue
      expectProblem(answer, { status: 409, code })
      if (!MOVED_ON.test(answer.body.detail)) continue
      late += 1
      expect(answer.body.run_id).toBe(run.run_id)
      if (name === 'resume') expect(answer.body.resume_blocker).toMatch(MOVED_ON)
      expectProblem(again, { status: 409, code })
    }
    expect(await waitForRun(run.run_id)).toMatchObject({ run_id: run.run_id })
  }
  // Otherwise none of them tests what this file is about.
  expect(late).toBeGreaterThan(0)
})
