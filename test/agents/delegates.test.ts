import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { ask, loopOutside, serveLoop } from './loop-setup.ts'

const RUNLANE_AGENTS = fileURLToPath(new URL('fixtures/delegates', import.meta.url))
const { model, ...service } = await serveLoop(await loopOutside(), { RUNLANE_AGENTS })

const childrenOf = async ({ run_id }: Run): Promise<Run[]> =>
  (await service.get(`/runs/${run_id}/children`)).body.children.toReversed()
const give = (agent: string, message: string) => ({ name: 'delegate', input: { agent, message } })

test('a model gives work to several agents at once, and hears what each of them says', async () => {
  const key = 'boss: several'
  model.script(key, [
    {
      text: 'I let them do it.',
      calls: [give('worker', 'hello'), give('clumsy', 'carry this'), give('nobody', 'x')],
    },
    { text: 'They did.' },
  ])
  const run = await service.createRun(ask('boss', key))

  expect(await service.waitForRun(run.run_id)).toMatchObject({
    status: 'completed',
    output: { text: 'They did.' },
    children: 2,
  })
  const answers = model
    .requestsOf(key)[1]
    ?.body.messages.filter((message) => message.role === 'tool')
    .map((message) => message.content)
  expect(answers).toEqual(['"HELLO"', 'it fell down', 'agent must be one of worker, clumsy'])
  expect(await childrenOf(run)).toMatchObject([
    { agent: 'worker', status: 'completed' },
    { agent: 'clumsy', status: 'failed' },
  ])
})

test('code of a thread delegates, catches the cancel of its child, and goes on; a crash between changes nothing', async () => {
  const run = await service.createRun({ agent: 'careful' })
  const second = await eventually(async () => {
    const [, found] = await childrenOf(run)
    return found?.status === 'running' && found
  })
  await service.kill()
  await service.restart()
  await service.waitForRun(run.run_id, {
    until: ({ status, attempt }) => status === 'waiting_on_child' && attempt === 2,
  })

  await service.post(`/api/v1/admin/agent-runtime/subagents/${second.run_id}/interrupt`, {
    reason: 'enough',
  })

  expect(await service.waitForRun(run.run_id)).toMatchObject({
    status: 'completed',
    output: ['ONE', { status: 'delegation_cancelled', by: 'token:admin', reason: 'enough' }],
    children: 2,
  })
  expect(await childrenOf(run)).toMatchObject([{ status: 'completed' }, { status: 'cancelled' }])
})

test.each([
  [{ tool: 'soon' }, 'timeouts.tool must be a positive number with a unit'],
  [{ tol: '1s' }, 'timeouts.tol is an unknown field'],
  ['1s', 'timeouts must be an object'],
])('limits that are none, as %j, are a failure that names them', async (input, message) => {
  const run = await service.createRun({ agent: 'hasty', input })
  expect(await service.waitForRun(run.run_id)).toMatchObject({
    status: 'failed',
    error_code: 'invalid_delegation',
    error_message: expect.stringContaining(message),
  })
})
