import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import {
  type Caught,
  caughtInCall,
  type Crashing,
  lookAt,
  startCrashing,
  threeCalls,
  timedOut,
} from './recovery-setup.ts'
import { DATABASES, expectProblem } from './setup.ts'

describe.each(DATABASES)('on %s, RUNLANE_RECOVERY=manual, after kill -9', (database) => {
  let service: Crashing
  let hit: Record<'again' | 'unknown', Caught>

  beforeAll(async () => {
    service = await startCrashing(database, 'manual')
    const steps = (url: string) => [
      { http: `${url}/1` },
      { step: 's', result: 2 },
      { http: `${url}/3`, body: { delay_ms: 100_000 }, effects: 'idempotent' },
      { say: 'done' },
    ]
    hit = {
      again: await caughtInCall(service, steps, 2, { metadata: { mine: 1 } }),
      unknown: await caughtInCall(service, threeCalls('unsafe'), 2),
    }
    await service.crash()
  })
  afterAll(() => service.end())

  test('unknown calls block a resume until it brings their resolutions', async () => {
    const { waitForRun, resume, run } = service
    const { run_id, paths } = lookAt(hit.unknown)
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
    expect(paths()).toEqual(['/before', '/unknown', '/after'])
  })

  test('the run is timed_out and resumes on request, recorded calls not made again', async () => {
    const { waitForRun, crash, resume, events } = service
    const { run_id, effects, paths } = lookAt(hit.again)
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

    expect(paths()).toEqual(['/1', '/3', '/3'])
    const resumed = (await events(run_id)).filter((event) => event.event_type === 'run_resumed')
    expect(resumed).toMatchObject([{ payload: { attempt: 2, replayed: 2 } }])
  })

  test('a failed run resumes: what is recorded is not made again, and it ends by its records', async () => {
    const { waitForRun, resume, events } = service
    const failing = (url: string) => [{ http: url }, { tool: 'broken', fail: 'no' }]
    const { run_id, paths } = lookAt(await caughtInCall(service, failing, 1))
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'failed',
      metadata: { resume_available: true },
    })

    expect((await resume(run_id)).status).toBe(202)
    await waitForRun(run_id, { until: (run) => run.attempt === 2 && run.status === 'failed' })

    expect(paths()).toHaveLength(1)
    const types = (await events(run_id)).map((event) => event.event_type)
    expect(types).toContain('run_resumed')
  })
})
