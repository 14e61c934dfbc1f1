import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { play, type Play, type Scenario } from './scenario.ts'
import type { Run } from './api.ts'

const FIXTURES = fileURLToPath(new URL('fixtures', import.meta.url))

/** What the watchdog has said of a run, in order. */
async function found({ events }: Play, run: Run): Promise<string[]> {
  return (await events(run)).flatMap(({ event_type, payload }) =>
    event_type === 'run_stuck' || event_type === 'run_recovered'
      ? [`${event_type} ${String(payload['stuck_reason'])}`]
      : [],
  )
}

/** The watchdog's clocks, over HTTP, with limits of some hundred milliseconds. */
export const watchdogScenarios: readonly Scenario[] = [
  {
    name: 'a run that blocks its executor is flagged as stuck, and no longer when the executor answers again',
    needs: ['active--stuck.noted[0]', 'active--stuck.cleared[0]'],
    alone: { watchdogExecutorMs: 300, folder: FIXTURES },
    async play({ service, deadlineMs }) {
      const stage = play(service, deadlineMs)
      const { api, tells, ends } = stage
      const stuck_reason = 'executor.unresponsive(300ms)'
      const run = await api.createRun({ agent: 'blocked', input: null })
      await tells(run, 'run_stuck')
      expect((await api.get('/runs?stuck=true')).body.runs).toMatchObject([
        { run_id: run.run_id, stuck_reason, status: 'running' },
      ])
      await tells(run, 'run_recovered')
      expect((await api.get('/runs?stuck=true')).body.runs).toEqual([])
      expect((await api.get(`/runs/${run.run_id}`)).body.stuck_reason).toBeNull()
      expect(await found(stage, run)).toEqual([
        `run_stuck ${stuck_reason}`,
        `run_recovered ${stuck_reason}`,
      ])
      await api.cancel(run.run_id)
      expect(await ends(run)).toMatchObject({ status: 'cancelled' })
    },
  },
  {
    name: 'a run that thinks for too long is stuck until it comes to its next call, which it makes',
    needs: ['active--stuck.noted[0]'],
    alone: { watchdog: { reasoning: 300 } },
    async play({ service, deadlineMs }) {
      const stage = play(service, deadlineMs)
      const { post, tells, ends, results } = stage
      const run = await post([{ think: 1_000 }, { tool: 'next', ms: 1 }])
      await tells(run, 'run_stuck')
      // The limits that a run gives by itself count for it.
      const patient = await post([{ think: 600 }], { timeouts: { reasoning: '1h' } })
      expect(await ends(run)).toMatchObject({ status: 'completed', attempt: 1 })
      expect(await results(run)).toMatchObject([{ tool: 'next', outcome: 'succeeded' }])
      expect(await found(stage, run)).toEqual([
        'run_stuck reasoning.no_progress(300ms)',
        'run_recovered reasoning.no_progress(300ms)',
      ])
      expect(await ends(patient)).toMatchObject({ status: 'completed' })
      expect(await found(stage, patient)).toEqual([])
    },
  },
  {
    name: 'a run of which one call hangs starts no other until that call has ended; a cancel ends it at once',
    needs: ['active--stuck.noted[0]'],
    alone: { watchdog: { tool: 300 } },
    async play({ service, deadlineMs }) {
      const stage = play(service, deadlineMs)
      const { api, tells, events, ends, results } = stage
      const beside = (hang: number) =>
        api.createRun({ agent: 'one_hangs', input: { hang, beside: 100 } })
      const slow = await beside(1_500)
      const lost = await beside(60_000)
      expect(await ends(slow)).toMatchObject({ status: 'completed', attempt: 1 })
      const flags = (await events(slow)).filter(({ event_type }) => event_type === 'run_stuck')
      expect(flags.map(({ payload }) => payload['tool_call_id'])).toEqual(['hang'])
      expect(await found(stage, slow)).toEqual([
        'run_stuck tool_call.timeout(300ms)',
        'run_recovered tool_call.timeout(300ms)',
      ])
      // What it does beside takes no longer: all but the first few began when the call that hung was over.
      await tells(lost, 'run_stuck')
      expect((await results(lost)).length).toBeLessThan((await results(slow)).length)
      await api.cancel(lost.run_id)
      expect(await ends(lost)).toMatchObject({ status: 'cancelled', stuck_reason: null })
    },
  },
  {
    name: 'a tool call that is silent for too long is told of, and its answer clears that',
    needs: ['active--stuck.noted[0]'],
    alone: { watchdog: { tool: 300 } },
    async play({ service, deadlineMs }) {
      const stage = play(service, deadlineMs)
      const run = await stage.post([{ tool: 'slow', ms: 1_000 }, { step: 'after' }])
      expect(await stage.ends(run)).toMatchObject({ status: 'completed', attempt: 1 })
      expect(await found(stage, run)).toEqual([
        'run_stuck tool_call.timeout(300ms)',
        'run_recovered tool_call.timeout(300ms)',
      ])
    },
  },
  {
    name: 'a stuck run is ended by force, and one that is not stuck only if that is said',
    needs: ['active--run.recycled[0]'],
    alone: { watchdog: { tool: 200 } },
    async play({ service, deadlineMs }) {
      const { api, post, tells, reaches } = play(service, deadlineMs)
      const recycle = (run: Run, body = {}) =>
        api.post(`/api/v1/admin/agent-runtime/runs/${run.run_id}/recycle`, body)
      const stuck = await post([{ tool: 'lost', hang: true }])
      await tells(stuck, 'run_stuck')
      expect((await recycle(stuck)).status).toBe(202)
      expect(await reaches(stuck, 'failed')).toMatchObject({ error_code: 'recycled' })
      const well = await post([{ think: 60_000 }])
      await reaches(well, 'running')
      expect((await recycle(well)).status).toBe(409)
      expect((await recycle(well, { force: true })).status).toBe(202)
      expect(await reaches(well, 'failed')).toMatchObject({ error_code: 'recycled' })
    },
  },
  {
    name: 'the watchdog tells in shadow that it would end a run that is stuck for too long, and spares it',
    needs: ['active--verdict.noted[0]'],
    alone: { watchdog: { tool: 200 }, autoTerminate: { mode: 'shadow', afterMs: 200 } },
    async play({ service, deadlineMs }) {
      const { api, post, tells, events, reaches } = play(service, deadlineMs)
      const run = await post([{ tool: 'lost', hang: true }])
      await tells(run, 'watchdog_verdict')
      const verdict = (await events(run)).find((one) => one.event_type === 'watchdog_verdict')
      expect(verdict?.payload).toMatchObject({
        action: 'auto_terminate',
        result: 'would_end',
        clock: 'tool',
        stuck_reason: 'tool_call.timeout(200ms)',
        limit_ms: 200,
      })
      expect((await api.get(`/runs/${run.run_id}`)).body.status).toBe('waiting_on_tool')
      await api.post(`/api/v1/admin/agent-runtime/runs/${run.run_id}/recycle`, {})
      expect(await reaches(run, 'failed')).toMatchObject({ error_code: 'recycled' })
    },
  },
  {
    name: 'sixty runs of a hundred that are stuck at once are spared, and shown as an outage',
    needs: ['active--verdict.noted[0]'],
    alone: { watchdog: { tool: 200 }, autoTerminate: { mode: 'on', afterMs: 300 } },
    async play({ service, deadlineMs }) {
      const { api, tells } = play(service, deadlineMs)
      const runs = await api.createBatch(
        Array.from({ length: 100 }, (_, nth) => ({
          agent: 'scripted',
          input: { steps: nth < 60 ? [{ tool: 'down', hang: true }] : [{ think: 60_000 }] },
        })),
      )
      for (const run of runs.slice(0, 60)) await tells(run, 'watchdog_verdict')
      const { summary, nodes } = (await api.get('/api/v1/admin/agent-runtime/snapshot')).body
      expect(summary).toMatchObject({ running: 100, stuck: 60 })
      expect(nodes).toMatchObject([{ systemic: 'all: 60 of 100 runs, tool: 60 of 60 runs' }])
    },
  },
  {
    name: 'a run with a limit of its own is ended when it is stuck for that long, though others are not',
    needs: ['active--run.recycled[0]'],
    alone: { watchdog: { tool: 200 } },
    async play({ service, deadlineMs }) {
      const { api, post, reaches, tells, events } = play(service, deadlineMs)
      const hang = [{ tool: 'lost', hang: true }]
      const other = await post(hang)
      const run = await post(hang, { execution_timeout_override: '300ms' })
      expect(await reaches(run, 'failed')).toMatchObject({
        error_code: 'auto_terminated',
        error_message: 'Execution auto-terminated after 1 minutes by watchdog',
      })
      const verdict = (await events(run)).find((one) => one.event_type === 'watchdog_verdict')
      expect(verdict?.payload).toMatchObject({ result: 'ended', limit_ms: 300 })
      await tells(other, 'run_stuck')
      expect((await api.get(`/runs/${other.run_id}`)).body.status).toBe('waiting_on_tool')
    },
  },
  {
    name: 'a run that waits in line for too long has failed, and one that is not due yet has not',
    needs: ['waiting_on_lane--queue.expired[0]'],
    alone: { queueTimeoutMs: 400 },
    async play({ service, deadlineMs }) {
      const { api, post, reaches, events } = play(service, deadlineMs)
      const lane = { lane_key: `late-${crypto.randomUUID()}` }
      const head = await post([{ think: 60_000 }], lane)
      await reaches(head, 'running')
      const later = await post([], { run_at: new Date(Date.now() + 3_600_000).toISOString() })
      const late = await post([], lane)
      expect(await reaches(late, 'failed')).toMatchObject({
        detail: 'queue timeout',
        error_code: 'queue_timeout',
        error_message: 'It waited longer than 400ms for its lane or a free slot',
      })
      const verdict = (await events(late)).find((one) => one.event_type === 'watchdog_verdict')
      expect(verdict?.payload).toMatchObject({ action: 'queue_timeout', limit_ms: 400 })
      expect((await api.get(`/runs/${head.run_id}`)).body.status).toBe('running')
      expect((await api.get(`/runs/${later.run_id}`)).body.status).toBe('queued')
      await api.cancel(head.run_id)
    },
  },
  {
    name: 'a run for which no node has a slot has failed when it waited too long',
    needs: ['queued--queue.expired[0]'],
    alone: { queueTimeoutMs: 400, concurrency: 1 },
    async play({ service, deadlineMs }) {
      const { api, post, reaches } = play(service, deadlineMs)
      const head = await post([{ think: 60_000 }])
      await reaches(head, 'running')
      const late = await post([])
      expect(late.status).toBe('queued')
      expect(await reaches(late, 'failed')).toMatchObject({ error_code: 'queue_timeout' })
      await api.cancel(head.run_id)
    },
  },
  {
    name: 'a run of a chat that nobody reads is an orphan, and none when somebody reads it again',
    needs: ['active--readers.gone[0]', 'active--readers.back[0]'],
    alone: { orphanGraceMs: 300 },
    async play({ service, deadlineMs }) {
      const { api, post, tells } = play(service, deadlineMs)
      const run = await post([{ think: 60_000 }], { surface: 'chat' })
      await tells(run, 'run_orphaned')
      expect((await api.get('/runs?orphan=true')).body.runs).toMatchObject([
        { run_id: run.run_id, orphan: true },
      ])
      const leaving = new AbortController()
      const reading = fetch(`${service.url}/runs/${run.run_id}/agent-events`, {
        headers: { authorization: `Bearer ${service.token}` },
        signal: leaving.signal,
      })
      await tells(run, 'run_watched').finally(() => leaving.abort())
      await reading.catch(() => {})
      expect((await api.get('/runs?orphan=true')).body.runs).toEqual([])
    },
  },
  {
    name: 'a turn that takes too long is held at its next boundary, though it moves, until it is extended',
    needs: ['active--turn.extended[0]'],
    alone: { watchdog: { turn: 400 } },
    async play({ service, deadlineMs }) {
      const stage = play(service, deadlineMs)
      const { api, post, tells, ends, results } = stage
      const run = await post([
        { say: 'one two three four', chunks: 4, ms: 1_200 },
        { step: 'held' },
      ])
      await tells(run, 'message')
      expect(await found(stage, run)).toEqual(['run_stuck turn.timeout(400ms)'])
      expect(await results(run)).toEqual([])
      const extended = await api.post(`/runs/${run.run_id}/extend`, { by: '1h', reason: 'wanted' })
      expect(extended).toMatchObject({ status: 202, body: { command: { kind: 'extend' } } })
      expect(await ends(run)).toMatchObject({ status: 'completed', attempt: 1 })
      const refused = await api.post(`/runs/${run.run_id}/extend`, { by: '1h' })
      expect(refused).toMatchObject({ status: 409, body: { code: 'not_active' } })
    },
  },
]
