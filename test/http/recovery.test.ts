import { describe, expect, inject, onTestFinished, test } from 'vitest'
import { type Api, api, type Run } from '../support/api.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { createDatabase } from '../support/postgres.ts'
import { startService } from '../support/service.ts'
import { DATABASES, expectProblem, scripted } from './setup.ts'

type Crashing = Api & {
  readonly effects: EffectServer
  /** `kill -9`, then a new start with the same database. */
  crash(): Promise<void>
}

describe.each(DATABASES)('on %s, after kill -9', (database) => {
  const start = async (recovery: 'auto' | 'manual' = 'auto'): Promise<Crashing> => {
    const effects = await startEffectServer()
    onTestFinished(() => effects.close())
    const own = database === 'postgres' ? await createDatabase(inject('databaseUrl')) : undefined
    const env = { RUNLANE_LEASE: '1s', RUNLANE_RECOVERY: recovery }
    let service = await startService({ env, databaseUrl: own?.url })
    onTestFinished(async () => {
      await service.kill()
      await own?.drop()
    })
    return {
      // The port stays the same, so the client goes on with the next process.
      ...api(service),
      effects,
      crash: async () => {
        await service.kill()
        service = await service.restart()
      },
    }
  }

  const parked = (run: Run): boolean => run.status === 'waiting_on_human'
  const timedOut = (run: Run): boolean => run.status === 'timed_out'

  /** A run that was killed in the middle of the second of three calls. */
  const killedInCall = async (
    { effects, createRun, crash }: Crashing,
    kind: 'unsafe' | 'idempotent' | 'none',
  ): Promise<string> => {
    const { run_id } = await createRun(
      scripted([
        { http: `${effects.url}/before`, body: { reply: 'recorded' } },
        { http: `${effects.url}/unknown`, body: { hang: true }, effects: kind, call_id: 'charge' },
        { http: `${effects.url}/after`, body: { reply: 'last' } },
      ]),
    )
    await eventually(() => effects.calls.length === 2)
    await crash()
    return run_id
  }
  const paths = ({ effects }: Crashing): string[] => effects.calls.map((call) => call.path)

  test('an unsafe call of unknown outcome waits for a human and goes on with the answer', async () => {
    const service = await start()
    const { waitForRun, events, respond, get, effects } = service
    const run_id = await killedInCall(service, 'unsafe')
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
    expect(paths(service)).toEqual(['/before', '/unknown', '/after'])
    expect(effects.callsByKey().size).toBe(3)
    expectProblem(await respond(run_id, answer), { status: 409, code: 'not_waiting' })
    const types = (await events(run_id)).map((event) => event.event_type)
    expect(types).toContain('human_answered')
    const results = (await get(`/runs/${run_id}/tool-results`)).body.tool_results
    expect(results).toMatchObject([{}, { tool_call_id: 'charge', outcome: 'succeeded' }, {}])
  })

  test('answered as failed, the call is a failed call', async () => {
    const service = await start()
    const run_id = await killedInCall(service, 'unsafe')
    await service.waitForRun(run_id, { until: parked })
    await service.respond(run_id, { outcome: 'failed' })

    expect(await service.waitForRun(run_id)).toMatchObject({
      status: 'failed',
      error_code: 'tool_failed',
    })
    expect(paths(service)).toEqual(['/before', '/unknown'])
  })

  test('answered with retry, the call is made once more, under the same key', async () => {
    const service = await start()
    const { effects, respond, waitForRun } = service
    const run_id = await killedInCall(service, 'unsafe')
    await waitForRun(run_id, { until: parked })
    await respond(run_id, { outcome: 'retry' })
    await eventually(() => effects.calls.length === 3)
    effects.release()

    expect((await waitForRun(run_id)).status).toBe('completed')
    expect(paths(service)).toEqual(['/before', '/unknown', '/unknown', '/after'])
    expect(effects.calls[1]?.idempotencyKey).toBe(effects.calls[2]?.idempotencyKey)
  })

  test.each(['idempotent', 'none'] as const)(
    'a call with effects %s is made again by itself, under the same key',
    async (kind) => {
      const service = await start()
      const { effects, waitForRun, events } = service
      const run_id = await killedInCall(service, kind)
      await eventually(() => effects.calls.length === 3, { timeoutMs: 20_000 })
      effects.release()

      const done = await waitForRun(run_id)
      expect(done).toMatchObject({ status: 'completed', attempt: 2 })
      expect(paths(service)).toEqual(['/before', '/unknown', '/unknown', '/after'])
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
    const service = await start()
    const run_id = await killedInCall(service, 'unsafe')
    const { lane_key } = await service.waitForRun(run_id, { until: parked })
    const other = await service.createRun(scripted([], { lane_key }))
    expect((await service.waitForRun(other.run_id)).status).toBe('completed')

    const { body } = await service.cancel(run_id)

    expect(body.run).toMatchObject({ status: 'cancelled' })
    const late = await service.respond(run_id, { outcome: 'retry' })
    expectProblem(late, { status: 409, code: 'not_waiting' })
  })

  test('a run that was asked to cancel is cancelled, its call of unknown outcome not made again', async () => {
    const service = await start()
    const { createRun, effects, waitForRun, cancel, crash } = service
    const { run_id } = await createRun(scripted([{ http: effects.url, body: { hang: true } }]))
    await eventually(() => effects.calls.length === 1)
    await cancel(run_id)
    await waitForRun(run_id, { until: (run) => run.status === 'cancel_requested' })
    await crash()

    expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled', attempt: 1 })
    expect(effects.calls).toHaveLength(1)
  })

  test('hold_lane_on_human keeps the lane while the run waits', async () => {
    const service = await start()
    const { createRun, effects, waitForRun, run, crash, respond } = service
    const http = { http: effects.url, body: { hang: true } }
    const more = { lane_key: 'held', hold_lane_on_human: true }
    const { run_id } = await createRun(scripted([http], more))
    await eventually(() => effects.calls.length === 1)
    await crash()
    await waitForRun(run_id, { until: parked })
    const next = await createRun(scripted([], { lane_key: 'held' }))
    expect(next.status).toBe('waiting_on_lane')
    expect((await run(next.run_id)).status).toBe('waiting_on_lane')

    await respond(run_id, { outcome: 'succeeded' })

    expect((await waitForRun(run_id)).status).toBe('completed')
    expect((await waitForRun(next.run_id)).status).toBe('completed')
  })

  test('RUNLANE_RECOVERY=manual: the run is timed_out and resumes on request, recorded calls not made again', async () => {
    const service = await start('manual')
    const { createRun, effects, waitForRun, crash, resume, events } = service
    const steps = [
      { http: `${effects.url}/1` },
      { step: 's', result: 2 },
      { http: `${effects.url}/3`, body: { delay_ms: 100_000 }, effects: 'idempotent' },
      { say: 'done' },
    ]
    const { run_id } = await createRun(scripted(steps, { metadata: { mine: 1 } }))
    await eventually(() => effects.calls.length === 2)
    await crash()
    expect(await waitForRun(run_id, { until: timedOut })).toMatchObject({
      error_code: 'attempt_lost',
      metadata: { mine: 1, resume_available: true },
      resume_blocker: null,
      ended_at: expect.any(String),
    })

    const response = await resume(run_id, { reason: 'the node is back' })
    expect(response.status).toBe(202)
    expect(response.body.command).toMatchObject({ kind: 'resume', status: 'applied' })
    await eventually(() => effects.calls.length === 3)
    await crash()
    await waitForRun(run_id, { until: timedOut })
    expectProblem(await service.cancel(run_id), { status: 409, code: 'not_cancellable' })

    expect(effects.calls.map((call) => call.path)).toEqual(['/1', '/3', '/3'])
    const resumed = (await events(run_id)).filter((event) => event.event_type === 'run_resumed')
    expect(resumed).toMatchObject([{ payload: { attempt: 2, replayed: 1 } }])
  })

  test('RUNLANE_RECOVERY=manual: unknown calls block a resume until it brings their resolutions', async () => {
    const service = await start('manual')
    const { waitForRun, resume, run, effects } = service
    const run_id = await killedInCall(service, 'unsafe')
    const ended = await waitForRun(run_id, { until: timedOut })
    expect(ended).toMatchObject({
      metadata: { resume_available: false },
      resume_blocker: expect.stringMatching(/^unknown_tool_call.*charge/),
    })

    const bare = await resume(run_id)
    expectProblem(bare, { status: 409, code: 'unknown_tool_call' })
    expect(bare.body).toMatchObject({
      resume_blocker: ended['resume_blocker'],
      unknown_calls: [{ tool_call_id: 'charge', tool: expect.stringMatching(/\S/) }],
      detail: expect.stringMatching(/charge \(.*"resolutions": \{"charge": \{"outcome"/),
    })
    const strange = await resume(run_id, {
      resolutions: { charge: { outcome: 'retry' }, other: { outcome: 'retry' } },
    })
    expectProblem(strange, { status: 422, code: 'validation_error', paths: ['resolutions.other'] })
    expect((await run(run_id)).status).toBe('timed_out')

    const resolutions = { charge: { outcome: 'succeeded', result: 'told' } }
    const response = await resume(run_id, { resolutions })
    expect(response.status).toBe(202)
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'completed',
      attempt: 2,
      error_code: null,
      error_message: null,
      output: { results: ['recorded', 'told', 'last'] },
    })
    expect(effects.calls.map((call) => call.path)).toEqual(['/before', '/unknown', '/after'])
  })

  test('a failed run resumes: what is recorded is not made again, and it ends by its records', async () => {
    const service = await start()
    const { createRun, effects, waitForRun, resume, events } = service
    const steps = [{ http: effects.url }, { tool: 'broken', fail: 'no' }]
    const { run_id } = await createRun(scripted(steps))
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'failed',
      metadata: { resume_available: true },
    })

    expect((await resume(run_id)).status).toBe(202)
    await waitForRun(run_id, { until: (run) => run.attempt === 2 && run.status === 'failed' })

    expect(effects.calls).toHaveLength(1)
    const types = (await events(run_id)).map((event) => event.event_type)
    expect(types).toContain('run_resumed')
  })

  test('attempts that record nothing end in front of a human (crash_loop), who may try again', async () => {
    const service = await start()
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
