import { afterAll, describe, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const service = await startService({
  databaseUrl,
  env: { RUNLANE_WATCHDOG_TOOL: '300ms', RUNLANE_WATCHDOG_INTERVAL: '50ms' },
})
afterAll(() => service.kill())
const { get, post, createRun, waitForRun, events, cancel } = api(service)

const BASE = '/api/v1/admin/agent-runtime'
const LONG = { timeouts: { tool: '1h' } }
const HANG = { tool: 'lost', hang: true }
const hanging = (more = {}) => createRun(scripted([HANG], more))
const stuck = async (run: Run): Promise<Run> =>
  waitForRun(run.run_id, { until: (one) => one['stuck_reason'] !== null })
const snapshot = async (query = '') => (await get(`${BASE}/snapshot${query}`)).body
const auditOf = async (runId: string) =>
  (await get('/api/v1/admin/audit?limit=1000')).body.audit.filter(
    (row: { run_id: string }) => row.run_id === runId,
  )
const diagnosisOf = async (run: Run) => (await get(`/runs/${run.run_id}/diagnosis`)).body

describe('recycle', () => {
  test('ends a stuck run by force, names why, frees its lane and is audited', async () => {
    const conversation_id = 'recycled'
    const run = await stuck(await hanging({ conversation_id }))
    const next = await createRun(scripted([{ return: 1 }], { conversation_id }))
    expect(next.status).toBe('waiting_on_lane')

    const answer = await post(`${BASE}/runs/${conversation_id}/recycle`, { reason: 'no answer' })

    expect(answer).toMatchObject({ status: 202, body: { command: { kind: 'recycle' } } })
    expect(await waitForRun(run.run_id)).toMatchObject({
      status: 'failed',
      error_code: 'recycled',
      error_message: 'Recycled by token:admin: tool_call.timeout(300ms)',
      stuck_reason: null,
    })
    expect(await waitForRun(next.run_id)).toMatchObject({ status: 'completed' })
    expect(await auditOf(run.run_id)).toMatchObject([
      { action: 'agent_runtime.recycle', outcome: 'applied', code: null, reason: 'no answer' },
    ])
  })

  test('spares a run that is not stuck, unless forced; the refusal is audited', async () => {
    const run = await createRun(scripted([{ think: 60_000 }]))
    await waitForRun(run.run_id, { until: ({ status }) => status === 'running' })
    const refused = await post(`${BASE}/runs/${run.run_id}/recycle`, { reason: 'impatient' })
    expectProblem(refused, { status: 409, code: 'not_stuck' })
    expect((await post(`${BASE}/runs/${run.run_id}/recycle`, { force: true })).status).toBe(202)
    expect(await waitForRun(run.run_id)).toMatchObject({
      status: 'failed',
      error_message: 'Recycled by token:admin: not stuck, forced',
    })
    const rows = await auditOf(run.run_id)
    expect(rows.map((row: { outcome: string }) => row.outcome)).toEqual(['applied', 'refused'])
    expect(rows[0]).toMatchObject({ code: 'forced' })
    expect(rows[1]).toMatchObject({ code: 'not_stuck', reason: 'impatient' })
  })

  test('of a run that was asked to cancel says when that is carried out by force, and how at once', async () => {
    const run = await createRun(
      scripted([{ tool: 'slow', ms: 60_000 }], { timeouts: { tool: '1h' } }),
    )
    await waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_tool' })
    await cancel(run.run_id)
    const asked = await waitForRun(run.run_id, {
      until: ({ status }) => status === 'cancel_requested',
    })
    const refused = await post(`${BASE}/runs/${run.run_id}/recycle`, {})
    expectProblem(refused, { status: 409, code: 'not_stuck' })
    const [, end = ''] =
      / by (\S+) \(RUNLANE_CANCEL_TIMEOUT, 180s\)/.exec(refused.body.detail) ?? []
    const limitMs = Date.parse(end) - Date.parse(asked.cancel.requested.at)
    expect(Math.abs(limitMs - 180_000)).toBeLessThan(10_000)
    expect(refused.body.detail).toContain('{"force": true}')
    expect((await post(`${BASE}/runs/${run.run_id}/recycle`, { force: true })).status).toBe(202)
    expect(await waitForRun(run.run_id)).toMatchObject({ status: 'failed' })
  })

  test.each([
    ['stop', 'not_cancellable'],
    ['recycle', 'not_stuck'],
  ])('%s of a conversation whose runs are all over is 409, audited', async (action, code) => {
    const conversation_id = `over for ${action}`
    const lanes = ['a', 'b'].map((lane_key) => scripted([], { conversation_id, lane_key }))
    const runs = []
    for (const lane of lanes) runs.push(await waitForRun((await createRun(lane)).run_id))
    const newest = runs.at(-1)?.run_id ?? ''
    for (const target of [encodeURIComponent(conversation_id), newest]) {
      const refused = await post(`${BASE}/runs/${target}/${action}`, { reason: target })
      expectProblem(refused, { status: 409, code })
      expect(refused.body).toMatchObject({ run_id: newest, run_status: 'completed' })
      await eventually(async () => (await auditOf(newest))[0]?.reason === target)
      expect((await auditOf(newest))[0]).toMatchObject({
        ...{ action: `agent_runtime.${action}`, target: newest, outcome: 'refused', code },
      })
    }
  })

  test('of what is not there is 404, of several active runs 409 with their ids', async () => {
    expectProblem(await post(`${BASE}/runs/nothing/recycle`, {}), {
      status: 404,
      code: 'not_found',
    })
    const lanes = ['a', 'b'].map((lane_key) => ({ conversation_id: 'two-lanes', lane_key }))
    const runs = await Promise.all(
      lanes.map((lane) => createRun(scripted([{ think: 60_000 }], lane))),
    )
    for (const run of runs)
      await waitForRun(run.run_id, { until: (one) => one.status === 'running' })
    const refused = await post(`${BASE}/runs/two-lanes/stop`, {})
    expectProblem(refused, { status: 409, code: 'ambiguous_target' })
    expect(refused.body.run_ids.toSorted()).toEqual(runs.map((run) => run.run_id).toSorted())
    for (const run of runs) await cancel(run.run_id)
  })
})

test('stop lets the step under way end, and no other begin', async () => {
  const steps = [{ tool: 'first', ms: 200, result: 1 }, { tool: 'second' }]
  const run = await createRun(scripted(steps, { conversation_id: 'stopped' }))
  await waitForRun(run.run_id, { until: (one) => one.status === 'waiting_on_tool' })
  expect((await post(`${BASE}/runs/stopped/stop`, { reason: 'enough' })).status).toBe(202)
  expect(await waitForRun(run.run_id)).toMatchObject({ status: 'cancelled' })
  const { tool_results } = (await get(`/runs/${run.run_id}/tool-results`)).body
  expect(tool_results).toMatchObject([{ tool: 'first', outcome: 'succeeded' }])
  expect(await auditOf(run.run_id)).toMatchObject([{ action: 'agent_runtime.stop' }])
})

describe('the snapshot', () => {
  test('has all unfinished runs, stuck first, then the most silent, and counts that fit its rows', async () => {
    const conversation_id = 'snapshot'
    const silent = await createRun(scripted([{ think: 60_000 }], { conversation_id }))
    await waitForRun(silent.run_id, { until: ({ status }) => status === 'running' })
    const behind = await createRun(scripted([], { conversation_id }))
    const later = await createRun(
      scripted([], { run_at: new Date(Date.now() + 3_600_000).toISOString() }),
    )
    const bad = await stuck(await hanging())

    const { summary, runs, nodes, cursor, truncated } = await snapshot()

    expect(summary).toEqual({
      running: 2,
      stuck: 1,
      orphan: 0,
      queued: 2,
      parked: 0,
      subagents_active: 0,
    })
    const ids = runs.map((run: Run) => run.run_id)
    expect(ids[0]).toBe(bad.run_id)
    expect(ids.toSorted()).toEqual([silent, behind, later, bad].map((run) => run.run_id).toSorted())
    expect(runs[0]).toMatchObject({ stuck_reason: 'tool_call.timeout(300ms)', subagents: [] })
    expect(runs[0]).not.toHaveProperty('input')
    expect(nodes).toMatchObject([{ status: 'serving', active_runs: 2 }])
    expect(truncated).toBe(false)
    const last = (await events(bad.run_id)).at(-1)
    expect(cursor).toBeGreaterThanOrEqual(Number(last?.id))

    const cut = await snapshot('?limit=1')
    expect(cut).toMatchObject({ truncated: true, summary, runs: [{ run_id: bad.run_id }] })
    for (const run of [silent, behind, later, bad]) await cancel(run.run_id)
    await post(`${BASE}/sweep`, {})
  })
})

describe('diagnosis', () => {
  test('of a run that works: it makes progress', async () => {
    const run = await createRun(scripted([{ think: 60_000 }]))
    await waitForRun(run.run_id, { until: ({ status }) => status === 'running' })
    // Until the executor has begun it, no clock runs.
    const diagnosis = await eventually(async () => {
      const found = await diagnosisOf(run)
      return found.causes[0]?.deadline && found
    })
    expect(diagnosis).toMatchObject({
      summary: expect.stringMatching(/^The run makes progress: It works\. Its next deadline: /),
      causes: [{ gate: 'progressing', run_id: run.run_id, action: null }],
    })
    await cancel(run.run_id)
  })

  test('follows the lane to the run that holds it, and to what that one waits for', async () => {
    const conversation_id = 'chain'
    const holder = await stuck(await hanging({ conversation_id }))
    const first = await createRun(scripted([], { conversation_id }))
    const second = await createRun(scripted([], { conversation_id }))

    const { summary, causes } = await diagnosisOf(second)

    expect(causes).toMatchObject([
      { gate: 'lane.held_by', run_id: second.run_id, holder: holder.run_id, current: 1 },
      { gate: 'tool.in_flight', run_id: holder.run_id, holder: 'tool_1', limit: 300 },
    ])
    expect(causes).toHaveLength(2)
    expect(summary).toContain(`held by ${holder.run_id}, which is waiting_on_tool and stuck`)
    expect(summary).toMatch(/There: The watchdog found its call of lost stuck/)
    expect((await diagnosisOf(holder)).summary).toBe(
      'The run is waiting_on_tool: The watchdog found its call of lost stuck: tool_call.timeout(300ms).',
    )
    await post(`${BASE}/runs/${holder.run_id}/recycle`, {})
    for (const run of [first, second])
      expect(await waitForRun(run.run_id)).toMatchObject({ status: 'completed' })
    expect(await diagnosisOf(second)).toEqual({
      summary: 'The run has ended: completed.',
      causes: [],
    })
  })

  test('of a run that has ended says how, why, and whether it can be resumed', async () => {
    const ended = async (steps: unknown[]) => {
      const run = await createRun(scripted(steps))
      await waitForRun(run.run_id)
      return run
    }
    const failed = await ended([{ fail: 'no luck' }])
    expect(await diagnosisOf(failed)).toEqual({
      summary: expect.stringMatching(
        /^The run has ended: failed \(\w+: no luck\)\. It can be resumed\.$/,
      ),
      causes: [],
    })
    const thinking = await createRun(scripted([{ think: 60_000 }]))
    await cancel(thinking.run_id)
    await waitForRun(thinking.run_id)
    expect((await diagnosisOf(thinking)).summary).toMatch(
      /^The run has ended: cancelled.*\. It cannot be resumed: a cancelled run is never resumed\.$/,
    )
    const open = await stuck(await hanging())
    await post(`${BASE}/runs/${open.run_id}/recycle`, {})
    await waitForRun(open.run_id)
    expect((await diagnosisOf(open)).summary).toMatch(
      /^The run has ended: failed \(recycled: .*\)\. It can be resumed by whoever says what became of tool_1/,
    )
  })

  test('has its times as every other answer has them', async () => {
    const run = await createRun(scripted([{ tool: 'long', ms: 60_000, effects: 'none' }], LONG))
    await waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_tool' })
    const [only] = (await diagnosisOf(run)).causes
    for (const time of [only.since, only.deadline]) {
      expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
      expect(time).toBe(new Date(time).toISOString())
    }
    const { tool_results } = (await get(`/runs/${run.run_id}/tool-results`)).body
    expect(only.since).toBe(tool_results[0].started_at)
    await cancel(run.run_id)
    await waitForRun(run.run_id)
  })

  test('of a run with a time: not before then', async () => {
    const run_at = new Date(Date.now() + 3_600_000).toISOString()
    const run = await createRun(scripted([], { run_at }))
    expect((await diagnosisOf(run)).causes).toMatchObject([{ gate: 'not_before' }])
    await cancel(run.run_id)
  })

  test('of a cancel that is not acknowledged names the call that it waits for', async () => {
    const run = await hanging()
    await waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_tool' })
    await cancel(run.run_id)
    await eventually(async () => {
      const { causes } = await diagnosisOf(run)
      return causes[0]?.gate === 'cancel.unacknowledged' && causes[0]?.holder === 'tool_1'
    })
    await post(`${BASE}/runs/${run.run_id}/recycle`, { force: true })
    expect(await waitForRun(run.run_id)).toMatchObject({ status: 'failed' })
  })
})

test('a run that is stuck for longer than it may be is ended by the watchdog, audited as its doing', async () => {
  const run = await hanging({ execution_timeout_override: '300ms' })
  expect(await waitForRun(run.run_id)).toMatchObject({
    status: 'failed',
    error_code: 'auto_terminated',
    error_message: 'Execution auto-terminated after 1 minutes by watchdog',
  })
  expect(await auditOf(run.run_id)).toMatchObject([
    { actor: 'watchdog', action: 'watchdog.auto_terminate', reason: 'tool_call.timeout(300ms)' },
  ])
  const told = (await events(run.run_id)).map(({ event_type }) => event_type)
  expect(told.indexOf('watchdog_verdict')).toBeGreaterThan(told.indexOf('run_stuck'))
  expect(told.at(-1)).toBe('run_status_changed')
})
