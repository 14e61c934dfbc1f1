import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { type Crashing, parked, startCrashing, timedOut } from './recovery-setup.ts'
import { DATABASES, expectProblem, scripted } from './setup.ts'

const RUNLANE_AGENTS = fileURLToPath(new URL('../agents/fixtures/signals', import.meta.url))

const child = (...steps: object[]) => ({ agent: 'scripted', input: { steps } })
/** Waits, parked, for a signal `x`. */
const listener = { agent: 'listener', input: { parts: [{ read: 'x' }] } }

describe.each(DATABASES)('on %s, RUNLANE_RECOVERY=manual, after kill -9', (database) => {
  let service: Crashing
  let outside: EffectServer
  let hit: Record<'plain' | 'deep' | 'parked' | 'deepParked', Run>

  const childrenOf = async ({ run_id }: Run): Promise<Run[]> =>
    (await service.get(`/runs/${run_id}/children`)).body.children.toReversed()
  const onlyChild = (run: Run): Promise<Run> =>
    eventually(async () => (await childrenOf(run)).at(-1) ?? false)
  const called = (name: string, times: number) =>
    eventually(() => outside.calls.filter(({ path }) => path === `/${name}`).length === times)
  const timedOutRun = ({ run_id }: Run) => service.waitForRun(run_id, { until: timedOut })
  const preview = async ({ run_id }: Run) =>
    (await service.get(`/runs/${run_id}/resume-preview`)).body
  const told = async ({ run_id }: Run) =>
    (await service.events(run_id)).find(({ event_type }) => event_type === 'run_resumed')?.payload
  const isParked = ({ run_id }: Run) => service.waitForRun(run_id, { until: parked })
  const signalled = ({ run_id }: Run) =>
    service.post(`/runs/${run_id}/signal`, { name: 'x', data: 'go on' })

  beforeAll(async () => {
    outside = await startEffectServer()
    service = await startCrashing(database, 'manual', { RUNLANE_AGENTS, EFFECTS_URL: outside.url })
    const writer = (name: string) =>
      child({ http: `${outside.url}/${name}`, body: { hang: true, reply: name } })
    const post = (delegate: object) => service.createRun(scripted([{ step: 's' }, { delegate }]))
    hit = {
      plain: await post(writer('plain')),
      deep: await post(child({ delegate: writer('deep') })),
      parked: await post(listener),
      deepParked: await post(child({ delegate: listener })),
    }
    await called('plain', 1)
    await called('deep', 1)
    await isParked(await onlyChild(hit.parked))
    await isParked(await onlyChild(await onlyChild(hit.deepParked)))
    await service.crash()
  })
  afterAll(async () => {
    await service.end()
    await outside.close()
  })

  test.each(['plain', 'deep'] as const)(
    'a run resumes with the work of the children that were lost with it: %s',
    async (name) => {
      const run = hit[name]
      await timedOutRun(run)
      const lost = await timedOutRun(await onlyChild(run))
      expectProblem(await service.resume(lost.run_id), { status: 409, code: 'not_resumable' })
      const { replayed, unknown } = await preview(run)
      expect(replayed).toMatchObject([{ kind: 'step' }])
      expect(unknown).toMatchObject([{ kind: 'delegate', child_run_id: lost.run_id, asks: false }])

      expect((await service.resume(run.run_id)).status).toBe(202)

      await called(name, 2)
      expect(await told(run)).toMatchObject({ attempt: 2, replayed: 1 })
      outside.release()
      const ended = await service.waitForRun(run.run_id)
      expect(ended).toMatchObject({ status: 'completed', children: 2 })
      expect(JSON.stringify(ended.output)).toContain(`"results":["${name}"]`)
      expect(await childrenOf(run)).toMatchObject([
        { run_id: lost.run_id, status: 'timed_out' },
        { status: 'completed' },
      ])
    },
  )

  test('a child that was parked stays so, and the run waits for it when it resumes', async () => {
    const run = hit.parked
    await timedOutRun(run)
    const waiting = await onlyChild(run)
    expect(waiting).toMatchObject({ status: 'waiting_on_human', detail: 'signal' })
    const { body } = await service.get('/api/v1/admin/agent-runtime/snapshot')
    expect(body.runs.map((one: Run) => one.run_id)).toContain(waiting.run_id)
    const { replayed, unknown } = await preview(run)
    expect(replayed).toMatchObject([
      { kind: 'step' },
      { kind: 'delegate', child_run_id: waiting.run_id, outcome: 'started' },
    ])
    expect(unknown).toEqual([])

    expect((await service.resume(run.run_id)).status).toBe(202)

    await service.waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_child' })
    expect(await told(run)).toMatchObject({ replayed: 2 })
    expect((await signalled(waiting)).status).toBe(202)
    const ended = await service.waitForRun(run.run_id)
    expect(ended).toMatchObject({ status: 'completed', children: 1 })
    expect(ended.output).toMatchObject({
      results: [{}, { child_run_id: waiting.run_id, status: 'completed', output: ['go on'] }],
    })
  })

  test('what a child that is made anew had delegated has ended', async () => {
    const run = hit.deepParked
    await timedOutRun(run)
    const lost = await timedOutRun(await onlyChild(run))
    const [below] = await childrenOf(lost)
    expect(await service.waitForRun(String(below?.run_id))).toMatchObject({ status: 'cancelled' })

    await service.resume(run.run_id)

    const made = await eventually(async () => (await childrenOf(run))[1] ?? false)
    const again = await onlyChild(made)
    await isParked(again)
    await signalled(again)
    expect(await service.waitForRun(run.run_id)).toMatchObject({ status: 'completed', children: 2 })
  })
})
