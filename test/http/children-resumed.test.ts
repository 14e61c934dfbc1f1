import { afterAll, describe, expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { child, childrenOf, client, interrupt, post, reaches, toldOf } from './children-setup.ts'

const outside = await startEffectServer()
afterAll(() => outside.close())

/** A child that calls outside, where nobody answers before `release`. */
const writer = (name: string) =>
  child([{ http: `${outside.url}/${name}`, body: { hang: true, reply: `${name} written` } }])
const written = (name: string) => ({
  status: 'completed',
  output: { results: [`${name} written`] },
})
const called = (name: string, times: number): Promise<boolean> =>
  eventually(() => outside.calls.filter(({ path }) => path === `/${name}`).length === times)
const released = (run: Run): Promise<Run> => {
  outside.release()
  return client.waitForRun(run.run_id)
}

const recycle = async ({ run_id }: Run): Promise<void> => {
  const path = `/api/v1/admin/agent-runtime/runs/${run_id}/recycle`
  expect((await client.post(path, { force: true })).status).toBe(202)
  expect(await client.waitForRun(run_id)).toMatchObject({
    status: 'failed',
    metadata: { resume_available: true },
  })
}
const previewOf = async ({ run_id }: Run) =>
  (await client.get(`/runs/${run_id}/resume-preview`)).body
/** What it tells of its replay has to be what was shown before. */
const resume = async (run: Run): Promise<void> => {
  const { replayed } = await previewOf(run)
  const { attempt } = await client.run(run.run_id)
  expect((await client.resume(run.run_id)).status).toBe(202)
  const told = await eventually(async () => {
    const last = (await toldOf(run, 'run_resumed')).at(-1)
    return last?.payload.attempt === attempt + 1 && last
  })
  expect(told.payload.replayed).toBe(replayed.length)
}
const statusesOf = async (run: Run) => (await childrenOf(run)).map(({ status }) => status)
const resultsOf = ({ output }: Run) => (output as { results: unknown[] }).results

describe('a run that is resumed after a forced end', () => {
  test('has done what was cut off with it, however often that was', async () => {
    const steps = [{ step: 'prep' }, { delegate: writer('chapter') }, { say: 'all done' }]
    const run = await post(steps)
    for (const nth of [1, 2]) {
      await called('chapter', nth)
      await recycle(run)
      const old = (await childrenOf(run)).at(-1)
      const { replayed, unknown } = await previewOf(run)
      expect(replayed).toMatchObject([{ tool_call_id: 'step_1', kind: 'step' }])
      expect(unknown).toEqual([
        {
          tool_call_id: 'delegate_2',
          kind: 'delegate',
          tool: 'scripted',
          effects: null,
          asks: false,
          child_run_id: old?.run_id,
        },
      ])
      await resume(run)
    }
    await called('chapter', 3)

    const ended = await released(run)

    const children = await childrenOf(run)
    expect(children.map(({ status }) => status)).toEqual(['cancelled', 'cancelled', 'completed'])
    expect(ended).toMatchObject({ status: 'completed', children: 3 })
    const { run_id: child_run_id } = children[2] as Run
    expect(resultsOf(ended)[1]).toMatchObject({ child_run_id, ...written('chapter') })
    // Of each of them it was told the start and the end, once.
    const told = await toldOf(run, 'child_started', 'child_finished', 'delegation_cancelled')
    const of = told.map(({ payload }) => String(payload.child_run_id)).toSorted()
    expect(of).toEqual(children.flatMap(({ run_id }) => [run_id, run_id]))
  })

  test('has the tree below it made anew', async () => {
    const run = await post([{ delegate: child([{ delegate: writer('leaf') }]) }])
    await called('leaf', 1)
    await recycle(run)
    await resume(run)
    await called('leaf', 2)

    const [report] = resultsOf(await released(run)) as Run[]

    expect(report).toMatchObject({ status: 'completed' })
    expect(resultsOf(report as Run)).toMatchObject([written('leaf')])
    expect(await statusesOf(run)).toEqual(['cancelled', 'completed'])
  })

  test('keeps what children have reported, and has only the one made anew that was cut off', async () => {
    const given = [child([{ return: 'done' }]), child([{ fail: 'no luck' }]), writer('late')]
    const run = await post([{ delegate_all: given }])
    await called('late', 1)
    await eventually(async () => (await toldOf(run, 'child_finished')).length === 2)
    const [done, failed, late] = (await childrenOf(run)).map(({ run_id }) => run_id)
    await recycle(run)
    const { replayed, unknown } = await previewOf(run)
    expect(replayed).toMatchObject([
      { tool_call_id: 'delegate_1', kind: 'delegate', child_run_id: done, outcome: 'succeeded' },
      { tool_call_id: 'delegate_2', kind: 'delegate', child_run_id: failed },
    ])
    expect(unknown).toMatchObject([{ tool_call_id: 'delegate_3', child_run_id: late }])
    await resume(run)
    await called('late', 2)

    const [reports] = resultsOf(await released(run))

    expect(reports).toMatchObject([
      { child_run_id: done, status: 'completed', output: 'done' },
      { child_run_id: failed, status: 'failed', error_message: 'no luck' },
      written('late'),
    ])
    expect(await statusesOf(run)).toEqual(['completed', 'failed', 'cancelled', 'completed'])
  })

  test('is told of the children that somebody has cancelled, and has them not made anew', async () => {
    const run = await post([{ delegate_all: [writer('told'), writer('deaf'), writer('spared')] }])
    for (const name of ['told', 'deaf', 'spared']) await called(name, 1)
    const [told, deaf] = (await childrenOf(run)) as [Run, Run]
    // One whose end its parent has heard of, and one that did not come to its end before it was forced to.
    await interrupt(told, { reason: 'enough' })
    await interrupt(deaf, { reason: 'stop it' })
    await reaches(deaf, 'cancel_requested')
    await recycle(run)
    await resume(run)
    await called('spared', 2)

    const [reports] = resultsOf(await released(run))

    expect(reports).toMatchObject([
      { status: 'delegation_cancelled', by: 'token:admin', reason: 'enough' },
      { status: 'delegation_cancelled', by: 'token:admin', reason: 'stop it' },
      written('spared'),
    ])
    await called('told', 1)
    await called('deaf', 1)
    expect(await childrenOf(run)).toHaveLength(4)
  })

  test('has it made anew by a fork as well, and by that of a fork', async () => {
    const run = await post([{ step: 'prep' }, { delegate: writer('copy') }])
    await called('copy', 1)
    await recycle(run)
    const { current_checkpoint_id: checkpoint_id } = await client.run(run.run_id)

    const { status, body } = await client.post(`/runs/${run.run_id}/fork`, { checkpoint_id })

    expect(status).toBe(202)
    await called('copy', 2)
    await recycle(body)
    await resume(body)
    await called('copy', 3)
    expect(resultsOf(await released(body))[1]).toMatchObject(written('copy'))
    expect(await statusesOf(body)).toEqual(['cancelled', 'completed'])
    expect(await statusesOf(run)).toEqual(['cancelled'])
  })

  test('ends when it is cancelled while that is under way, and after it', async () => {
    const run = await post([{ delegate: writer('last') }])
    await called('last', 1)
    await recycle(run)
    await resume(run)
    await called('last', 2)
    await client.cancel(run.run_id)
    await reaches((await childrenOf(run))[1] as Run, 'cancel_requested')
    expect(await released(run)).toMatchObject({ status: 'cancelled' })
    expect(await statusesOf(run)).toEqual(['cancelled', 'cancelled'])
  })
})
