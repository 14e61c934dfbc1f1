import { describe, expect, onTestFinished, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { DATABASES, expectProblem, scripted, serveOnBoth } from './setup.ts'

const served = await serveOnBoth({ env: { RUNLANE_CANCEL_TIMEOUT: '2s' } })

const is =
  (status: string) =>
  (run: Run): boolean =>
    run.status === status

describe.each(DATABASES)('on %s', (database) => {
  const { get, post, createRun, run, waitForRun, events, cancel, resume, respond, service } =
    served[database]

  const expectCancelled = async (run_id: string): Promise<void> => {
    const done = await waitForRun(run_id)
    expect(done).toMatchObject({ status: 'cancelled', cancel_requested: true, output: null })
    const all = await events(run_id)
    expect(all.at(-1)).toMatchObject({
      event_type: 'run_status_changed',
      payload: { to: 'cancelled' },
    })
    const asked = all.filter((event) => event.event_type === 'cancel_requested')
    expect(asked[0]?.payload).toMatchObject({ by: 'token:admin', reason: 'enough' })
  }

  test('a cancel answers 202 with the command and the run', async () => {
    const { run_id } = await createRun(scripted([{ think: 60_000 }]))
    const response = await cancel(run_id, { reason: 'enough' })

    expect(response.status).toBe(202)
    expect(Object.keys(response.body).toSorted()).toEqual(['command', 'run'])
    expect(Object.keys(response.body.command).toSorted()).toEqual(
      ['command_id', 'kind', 'status', 'outcome'].toSorted(),
    )
    expect(response.body.command.kind).toBe('cancel')
    expect(response.body.run.run_id).toBe(run_id)
    await expectCancelled(run_id)
  })

  test('?wait= answers with the terminal state', async () => {
    const { run_id } = await createRun(scripted([{ think: 60_000 }]))
    const { body } = await post(`/runs/${run_id}/cancel?wait=20s`, { reason: 'enough' })

    expect(body.run.status).toBe('cancelled')
    await expectCancelled(run_id)
  })

  test('a run that waits for its lane, or for its time, is cancelled at once', async () => {
    const lane_key = `cancel-${database}`
    const holder = await createRun(scripted([{ think: 60_000 }], { lane_key }))
    const waiting = await createRun(scripted([], { lane_key }))
    const behind = await createRun(scripted([], { lane_key }))
    const run_at = new Date(Date.now() + 3_600_000).toISOString()
    const delayed = await createRun(scripted([], { lane_key, run_at }))
    expect([waiting.status, delayed.status]).toEqual(['waiting_on_lane', 'queued'])

    for (const { run_id } of [waiting, delayed]) {
      const { body } = await cancel(run_id, { reason: 'enough' })
      expect(body.command).toMatchObject({ status: 'applied' })
      expect(body.run.status).toBe('cancelled')
      await expectCancelled(run_id)
      expect((await events(run_id)).map((event) => event.event_type)).not.toContain(
        'lease_acquired',
      )
    }
    expect((await run(holder.run_id)).status).toBe('running')
    await cancel(holder.run_id, { reason: 'enough' })
    expect((await waitForRun(behind.run_id)).status).toBe('completed')
  })

  test('thinking, saying, a step and a call without effects are aborted', async () => {
    const steps = [
      { think: 60_000 },
      { say: 'never said to its end', chunks: 10, ms: 60_000 },
      { step: 'long', ms: 60_000 },
      { tool: 't', ms: 60_000, effects: 'none' },
      {
        parallel: [
          { tool: 't', ms: 60_000, effects: 'none' },
          { tool: 'u', ms: 10 },
        ],
      },
    ]
    for (const step of steps) {
      const { run_id } = await createRun(scripted([step, { tool: 'after' }]))
      await waitForRun(run_id, {
        until: ({ status }) => /^(running|waiting_on_tool)$/.test(status),
      })
      await cancel(run_id, { reason: 'enough' })
      await expectCancelled(run_id)
      const results = (await get(`/runs/${run_id}/tool-results`)).body.tool_results
      expect(results.map((result: { tool: string }) => result.tool)).not.toContain('after')
    }
  })

  test('a call that may change something is let finish and recorded, then the run is cancelled', async () => {
    const effects = await startEffectServer()
    onTestFinished(() => effects.close())
    const http = { http: effects.url, body: { hang: true } }
    const { run_id } = await createRun(scripted([http, { http: effects.url }]))
    await eventually(() => effects.calls.length === 1)

    await cancel(run_id, { reason: 'enough' })
    await waitForRun(run_id, { until: is('cancel_requested') })
    effects.release()

    await expectCancelled(run_id)
    const results = (await get(`/runs/${run_id}/tool-results`)).body.tool_results
    expect(results).toMatchObject([{ outcome: 'succeeded', result: { ok: true, n: 1 } }])
    expect(effects.calls).toHaveLength(1)
  })

  test('what does not end within RUNLANE_CANCEL_TIMEOUT is stopped hard, and its lane goes on', async () => {
    const lane_key = `hang-${database}`
    const { run_id } = await createRun(scripted([{ tool: 't', hang: true }], { lane_key }))
    const next = await createRun(scripted([], { lane_key }))
    await waitForRun(run_id, { until: is('waiting_on_tool') })

    await cancel(run_id, { reason: 'enough' })

    await expectCancelled(run_id)
    const moves = (await events(run_id)).map((event) => event.payload.to)
    expect(moves).toContain('cancel_requested')
    expect((await waitForRun(next.run_id)).status).toBe('completed')
  })

  test('a blocked thread is stopped hard as well', async () => {
    const { run_id } = await createRun(scripted([{ spin: 120_000 }]))
    await waitForRun(run_id, { until: is('running') })

    await cancel(run_id, { reason: 'enough' })

    await expectCancelled(run_id)
  })

  test('a second cancel is accepted and changes nothing', async () => {
    const { run_id } = await createRun(scripted([{ tool: 't', hang: true }]))
    await waitForRun(run_id, { until: is('waiting_on_tool') })
    const first = await cancel(run_id, { reason: 'enough' })
    const second = await cancel(run_id, { reason: 'again' })

    expect([first.status, second.status]).toEqual([202, 202])
    expect(second.body.command.command_id).not.toBe(first.body.command.command_id)
    await expectCancelled(run_id)
    const ends = (await events(run_id)).filter((event) => event.payload.to === 'cancelled')
    expect(ends).toHaveLength(1)
  })

  test('a hundred cancels at once end the run once', async () => {
    const { run_id } = await createRun(scripted([{ think: 60_000 }]))
    const answers = await Promise.all(
      Array.from({ length: 100 }, () => cancel(run_id, { reason: 'enough' })),
    )

    for (const { status } of answers) expect([202, 409]).toContain(status)
    await expectCancelled(run_id)
    const all = await events(run_id)
    expect(all.map((event) => event.sequence)).toEqual(all.map((_, index) => index + 1))
    expect(all.filter((event) => event.payload.to === 'cancelled')).toHaveLength(1)
  })

  test('a terminal run refuses cancel and respond with 409 and a code, and stays as it is', async () => {
    const completed = await createRun(scripted([]))
    const failed = await createRun(scripted([{ fail: 'x' }]))
    const cancelled = await createRun(scripted([{ think: 60_000 }]))
    await cancel(cancelled.run_id)
    for (const { run_id } of [completed, failed, cancelled]) {
      await waitForRun(run_id)
      const before = await events(run_id)
      expectProblem(await cancel(run_id), { status: 409, code: 'not_cancellable' })
      expectProblem(await respond(run_id, 1), { status: 409, code: 'not_waiting' })
      expect(await events(run_id)).toEqual(before)
    }
    for (const { run_id } of [completed, cancelled]) {
      const response = await resume(run_id)
      expectProblem(response, { status: 409, code: 'not_resumable' })
      expect(response.body.resume_blocker).toMatch(/\S/)
      expect(await run(run_id)).toMatchObject({
        resume_blocker: response.body.resume_blocker,
        metadata: { resume_available: false },
      })
    }
  })

  test('an active run refuses respond and resume with 409', async () => {
    const { run_id } = await createRun(scripted([{ think: 60_000 }]))
    expectProblem(await respond(run_id, 1), { status: 409, code: 'not_waiting' })
    expectProblem(await resume(run_id), { status: 409, code: 'not_resumable' })
    await cancel(run_id, { reason: 'enough' })
    await expectCancelled(run_id)
  })

  test('a cancel touches no sibling', async () => {
    const conversation_id = `siblings-${database}`
    const more = (n: number) => ({ conversation_id, lane_key: `${conversation_id}-${n}` })
    const one = await createRun(scripted([{ think: 60_000 }], more(1)))
    const two = await createRun(scripted([{ think: 500 }], more(2)))
    await cancel(one.run_id, { reason: 'enough' })

    await expectCancelled(one.run_id)
    expect(await waitForRun(two.run_id)).toMatchObject({
      status: 'completed',
      cancel_requested: false,
    })
  })

  test('nothing failed inside', () => {
    expect(service.stderr()).not.toMatch(/"level":"error"/)
  })

  test('the answer to a cancel is written when it is in the run: nobody sees it as if nothing had been asked', async () => {
    const runs = await Promise.all(
      Array.from({ length: 40 }, () => createRun(scripted([{ think: 60_000 }]))),
    )
    const answers = await Promise.all(
      runs.map(({ run_id }) => post(`/runs/${run_id}/cancel`, { reason: 'seen at once' })),
    )
    expect(answers.filter(({ body }) => body.run.cancel_requested !== true)).toEqual([])
    expect(answers.filter(({ body }) => body.command.status !== 'applied')).toEqual([])
    for (const { run_id } of runs) await waitForRun(run_id)
  })
})
