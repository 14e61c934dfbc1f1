import type { RunDraft } from 'runlane/client'
import { expect, test } from 'vitest'
import { scripted, serve } from '../http/setup.ts'
import { eventually } from '../support/eventually.ts'
import { allOf, clientOf, failureOf } from './setup.ts'

const { service } = await serve('postgres', {
  env: { RUNLANE_WATCHDOG_TOOL: '300ms', RUNLANE_WATCHDOG_INTERVAL: '50ms' },
})
const client = clientOf(service)

const posted = async (steps: readonly unknown[], more = {}) =>
  client.postRun(scripted(steps, more) as RunDraft)
const running = async (more = {}) => {
  const run = await posted([{ think: 60_000 }], more)
  await eventually(async () => (await client.getRun(run.run_id)).status === 'running')
  return run
}
const stuck = async () => {
  const run = await posted([{ tool: 'lost', hang: true }])
  await eventually(async () => (await client.getRun(run.run_id)).stuck_reason !== null)
  return run
}
const reasonsOf = async (action: string, runId: string) =>
  (await allOf(client.listAudit({ action })))
    .filter((row) => row.run_id === runId)
    .map(({ reason }) => reason)

test('stop ends the run of a conversation and waits for its end, once under a key', async () => {
  const { run_id } = await running({ conversation_id: 'stopped' })
  const options = { reason: 'enough', waitMs: 10_000, idempotencyKey: 'stop-1' }

  const { command, run } = await client.stopRun('stopped', options)

  expect(command).toMatchObject({ kind: 'stop', status: 'applied' })
  expect(run).toMatchObject({ run_id, status: 'cancelled' })
  const again = await client.stopRun('stopped', options)
  expect(again.command.command_id).toBe(command.command_id)
  expect(await failureOf(client.stopRun(run_id))).toMatchObject({ code: 'not_cancellable' })
  await eventually(async () => (await reasonsOf('agent_runtime.stop', run_id)).length === 2)
  expect(await reasonsOf('agent_runtime.stop', run_id)).toEqual([null, 'enough'])
})

test('recycle ends a stuck run by force, and any active one only when it must', async () => {
  const lost = await stuck()
  const { run } = await client.recycleRun(lost.run_id, { reason: 'no answer', waitMs: 10_000 })
  expect(run).toMatchObject({ run_id: lost.run_id, status: 'failed', error_code: 'recycled' })

  const well = await running()
  expect(await failureOf(client.recycleRun(well.run_id))).toMatchObject({ code: 'not_stuck' })
  const forced = await client.recycleRun(well.run_id, { force: true, waitMs: 10_000 })
  expect(forced.run).toMatchObject({ run_id: well.run_id, status: 'failed' })
})

test('a fork goes on from a checkpoint of another run, once under a key', async () => {
  const { run_id } = await posted([{ step: 'one', result: 1 }, { step: 'two' }])
  await client.wait(run_id)
  const [, one] = await allOf(client.listCheckpoints(run_id))
  const checkpoint = one?.checkpoint_id ?? ''
  const options = { reason: 'another way', idempotencyKey: 'fork-1' }

  const fork = await client.forkRun(run_id, checkpoint, options)

  expect(fork.forked_from).toEqual({ run_id, checkpoint_id: checkpoint })
  expect((await client.forkRun(run_id, checkpoint, options)).run_id).toBe(fork.run_id)
  const input = { steps: [{ step: 'one' }, { return: 'changed' }] }
  const other = await client.forkRun(run_id, checkpoint, { input })
  expect((await client.wait(other.run_id)).output).toBe('changed')
  const missing = await failureOf(client.forkRun(run_id, 'none'))
  expect(missing).toMatchObject({ code: 'not_found', status: 404 })
  expect(await reasonsOf('run.fork', run_id)).toEqual([null, null, 'another way'])
})

test('the snapshot and the diagnosis show what is stuck, and a sweep ends it', async () => {
  const lost = await stuck()
  const { runs, summary, cursor, truncated } = await client.getSnapshot({ limit: 1 })
  expect(runs).toMatchObject([{ run_id: lost.run_id, subagents: [] }])
  expect({ summary, truncated }).toMatchObject({ summary: { stuck: 1 }, truncated: false })
  expect(cursor).toBeGreaterThan(0)
  const { causes } = await client.getDiagnosis(lost.run_id)
  expect(causes[0]).toMatchObject({ gate: 'tool.in_flight', run_id: lost.run_id })

  const swept = await client.sweep({ reason: 'spring', idempotencyKey: 'sweep-1' })

  expect(swept).toEqual({ recycled: 1, run_ids: [lost.run_id] })
  expect(await client.sweep({ reason: 'spring', idempotencyKey: 'sweep-1' })).toEqual(swept)
  expect(await client.wait(lost.run_id)).toMatchObject({ status: 'failed' })
  expect(await reasonsOf('agent_runtime.recycle', lost.run_id)).toEqual(['spring'])
})

test('extend gives an active run more time, and no other', async () => {
  const { run_id } = await running()
  const { command } = await client.extendRun(run_id, 90_000, { reason: 'it thinks' })
  expect(command).toMatchObject({ kind: 'extend', status: 'applied' })
  expect(await reasonsOf('agent_runtime.extend', run_id)).toEqual(['it thinks'])
  for (const none of [0, -5]) {
    const refused = await failureOf(client.extendRun(run_id, none))
    expect(refused).toMatchObject({ code: 'validation_error', errors: [{ path: 'by' }] })
  }
  await client.cancelRun(run_id, { waitMs: 10_000 })
  expect(await failureOf(client.extendRun(run_id, 1_000))).toMatchObject({ code: 'not_active' })
})

test('a bulk action says what it would do, and does it when it is told to', async () => {
  const run = await running({ conversation_id: 'bulk' })
  const filter = { conversationId: 'bulk', runIds: [run.run_id], since: new Date(0) }
  expect(await client.bulkRuns('cancel', filter, { reason: 'spring' })).toMatchObject({
    ...{ dry_run: true, matched: 1, by_status: { running: 1 }, run_ids: [run.run_id] },
  })
  const done = await client.bulkRuns('cancel', filter, { reason: 'spring', dryRun: false })
  expect(done).toMatchObject({ dry_run: false, applied: 1, next_cursor: null })
  expect(await client.wait(run.run_id)).toMatchObject({ status: 'cancelled' })
})

test('each ends at once with its signal', async () => {
  const signal = AbortSignal.abort(new Error('enough'))
  for (const asked of [
    client.stopRun('x', { signal }),
    client.recycleRun('x', { signal }),
    client.sweep({ signal }),
    client.bulkRuns('cancel', { agent: 'x' }, { reason: 'x', signal }),
    client.extendRun('x', 1_000, { signal }),
    client.getSnapshot({ signal }),
    client.getDiagnosis('x', { signal }),
  ])
    expect(await failureOf(asked)).toBe(signal.reason)
})
