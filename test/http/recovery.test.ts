import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import {
  type Caught,
  caughtInCall,
  type Crashing,
  lookAt,
  parked,
  startCrashing,
  threeCalls,
} from './recovery-setup.ts'
import { DATABASES, expectProblem, scripted } from './setup.ts'

describe.each(DATABASES)('on %s, after kill -9', (database) => {
  let service: Crashing
  /** What the one kill has hit, by the test that looks at it. */
  let hit: Record<
    'answered' | 'failed' | 'retried' | 'idempotent' | 'none' | 'cancelled' | 'cancelling' | 'held',
    Caught
  >

  beforeAll(async () => {
    service = await startCrashing(database, 'auto')
    const caught = (kind: 'unsafe' | 'idempotent' | 'none') =>
      caughtInCall(service, threeCalls(kind), 2)
    const hanging = (url: string) => [{ http: url, body: { hang: true } }]
    const holding = { lane_key: 'held', hold_lane_on_human: true }
    hit = {
      answered: await caught('unsafe'),
      failed: await caught('unsafe'),
      retried: await caught('unsafe'),
      idempotent: await caught('idempotent'),
      none: await caught('none'),
      cancelled: await caught('unsafe'),
      cancelling: await caughtInCall(service, hanging, 1),
      held: await caughtInCall(service, hanging, 1, holding),
    }
    const { run_id } = hit.cancelling
    await service.cancel(run_id)
    await service.waitForRun(run_id, { until: (run) => run.status === 'cancel_requested' })
    await service.crash()
  })
  afterAll(() => service.end())

  test('an unsafe call of unknown outcome waits for a human and goes on with the answer', async () => {
    const { waitForRun, events, respond, get } = service
    const { run_id, effects, paths } = lookAt(hit.answered)
    expect(await waitForRun(run_id, { until: parked })).toMatchObject({
      detail: 'unknown_tool_call',
      attempt: 2,
      node_id: null,
    })
    const asked = (await events(run_id)).filter((event) => event.event_type === 'human_asked')
    expect(asked).toMatchObject([{ payload: { prompt: expect.stringContaining('charge') } }])

    for (const [answer, path] of [
      ['yes', 'answer'],
      [{}, 'answer.outcome'],
      [{ outcome: 'maybe' }, 'answer.outcome'],
      [{ outcome: 'succeeded', reslt: 1 }, 'answer.reslt'],
    ] as const) {
      const refused = await respond(run_id, answer)
      expectProblem(refused, { status: 422, code: 'validation_error', paths: [path] })
    }
    const answer = { outcome: 'succeeded', result: { id: 'ch_1' } }
    const response = await respond(run_id, answer)
    expect(response.status).toBe(202)
    expect(response.body.command).toMatchObject({ kind: 'respond', status: 'applied' })

    expect(await waitForRun(run_id)).toMatchObject({
      status: 'completed',
      detail: null,
      output: { results: ['recorded', { id: 'ch_1' }, 'last'] },
    })
    expect(paths()).toEqual(['/before', '/unknown', '/after'])
    expect(effects.callsByKey().size).toBe(3)
    expectProblem(await respond(run_id, answer), { status: 409, code: 'not_waiting' })
    const types = (await events(run_id)).map((event) => event.event_type)
    expect(types).toContain('human_answered')
    const results = (await get(`/runs/${run_id}/tool-results`)).body.tool_results
    expect(results).toMatchObject([{}, { tool_call_id: 'charge', outcome: 'succeeded' }, {}])
  })

  test('answered as failed, the call is a failed call', async () => {
    const { run_id, paths } = lookAt(hit.failed)
    await service.waitForRun(run_id, { until: parked })
    await service.respond(run_id, { outcome: 'failed' })

    expect(await service.waitForRun(run_id)).toMatchObject({
      status: 'failed',
      error_code: 'tool_failed',
    })
    expect(paths()).toEqual(['/before', '/unknown'])
  })

  test('answered with retry, the call is made once more, under the same key', async () => {
    const { respond, waitForRun } = service
    const { run_id, effects, paths } = lookAt(hit.retried)
    await waitForRun(run_id, { until: parked })
    await respond(run_id, { outcome: 'retry' })
    await eventually(() => effects.calls.length === 3)
    effects.release()

    expect((await waitForRun(run_id)).status).toBe('completed')
    expect(paths()).toEqual(['/before', '/unknown', '/unknown', '/after'])
    expect(effects.calls[1]?.idempotencyKey).toBe(effects.calls[2]?.idempotencyKey)
  })

  test.each(['idempotent', 'none'] as const)(
    'a call with effects %s is made again by itself, under the same key',
    async (kind) => {
      const { waitForRun, events } = service
      const { run_id, effects, paths } = lookAt(hit[kind])
      await eventually(() => effects.calls.length === 3, { timeoutMs: 20_000 })
      effects.release()

      const done = await waitForRun(run_id)
      expect(done).toMatchObject({ status: 'completed', attempt: 2 })
      expect(paths()).toEqual(['/before', '/unknown', '/unknown', '/after'])
      expect(effects.calls[1]?.idempotencyKey).toBe(effects.calls[2]?.idempotencyKey)
      const all = await events(run_id)
      expect(all.map((event) => event.sequence)).toEqual(all.map((_, index) => index + 1))
      expect(all.find((event) => event.event_type === 'run_resumed')?.payload).toEqual({
        checkpoint_id: expect.stringContaining(run_id),
        attempt: 2,
        replayed: 1,
      })
      const before = all.filter((event) => event.payload.outcome === 'replayed')
      expect(before).toHaveLength(1)
    },
  )

  test('a run that waits for a human is cancelled at once, its lane stays free', async () => {
    const { run_id } = lookAt(hit.cancelled)
    const { lane_key } = await service.waitForRun(run_id, { until: parked })
    const other = await service.createRun(scripted([], { lane_key }))
    expect((await service.waitForRun(other.run_id)).status).toBe('completed')

    const { body } = await service.cancel(run_id)

    expect(body.run).toMatchObject({ status: 'cancelled' })
    const late = await service.respond(run_id, { outcome: 'retry' })
    expectProblem(late, { status: 409, code: 'not_waiting' })
  })

  test('a run that was asked to cancel is cancelled, its call of unknown outcome not made again', async () => {
    const { run_id, paths } = lookAt(hit.cancelling)
    expect(await service.waitForRun(run_id)).toMatchObject({ status: 'cancelled', attempt: 1 })
    expect(paths()).toHaveLength(1)
  })

  test('hold_lane_on_human keeps the lane while the run waits', async () => {
    const { createRun, waitForRun, run, respond } = service
    const { run_id } = lookAt(hit.held)
    await waitForRun(run_id, { until: parked })
    const next = await createRun(scripted([], { lane_key: 'held' }))
    expect(next.status).toBe('waiting_on_lane')
    expect((await run(next.run_id)).status).toBe('waiting_on_lane')

    await respond(run_id, { outcome: 'succeeded' })

    expect((await waitForRun(run_id)).status).toBe('completed')
    expect((await waitForRun(next.run_id)).status).toBe('completed')
  })

  test('attempts that record nothing end in front of a human (crash_loop), who may try again', async () => {
    const { createRun, waitForRun, crash, respond } = service
    const { run_id } = await createRun(scripted([{ think: 60_000 }]))
    for (const attempt of [1, 2, 3]) {
      const until = (run: Run): boolean => run.attempt === attempt && run.status === 'running'
      await waitForRun(run_id, { until })
      await crash()
    }
    expect(await waitForRun(run_id, { until: parked })).toMatchObject({ detail: 'crash_loop' })
    const refused = await respond(run_id, { outcome: 'succeeded' })
    expectProblem(refused, { status: 422, code: 'validation_error', paths: ['answer.outcome'] })

    expect((await respond(run_id, { outcome: 'retry' })).status).toBe(202)

    const until = (run: Run): boolean => run.status === 'running'
    expect(await waitForRun(run_id, { until })).toMatchObject({ attempt: 4, detail: null })
  })
})
