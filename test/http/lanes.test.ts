import { describe, expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { DATABASES, expectProblem, scripted, serve, serveOnBoth } from './setup.ts'

const served = await serveOnBoth()
const narrow = await serve('postgres', { env: { RUNLANE_CONCURRENCY: '1' } })

const long = [{ think: 120_000 }]
const startOf = (run: Run): number => Date.parse(run['started_at'])

describe.each(DATABASES)('on %s', (database) => {
  const { get, post, createRun, createBatch, run, waitForRun, events, cancel, service } =
    served[database]

  const runsIn = async (lane_key: string): Promise<Run[]> =>
    (await get(`/runs?lane_key=${encodeURIComponent(lane_key)}`)).body.runs

  test.each([
    [{ surface: 'api' }, 'conversation:c1'],
    [{ surface: 'chat' }, 'conversation:c1'],
    [{ surface: 'playground' }, 'conversation:c1'],
    [{ surface: 'web_trigger' }, 'conversation:c1'],
    [{ surface: 'email' }, 'conversation:c1'],
    [{ surface: 'human_review' }, 'conversation:c1'],
    [{ surface: 'slack', channel: 'C1', sender_key: 'U1' }, 'adhoc:C1:U1'],
    [{ surface: 'telegram', sender_key: 'U1' }, 'adhoc:telegram:U1'],
    [{ surface: 'inbox', inbox_item_id: 'i1' }, 'inbox_item:i1'],
    [{ surface: 'schedule', task_run_id: 't1' }, 'task_run:t1'],
    [{ surface: 'slack', lane_key: 'mine' }, 'mine'],
  ])('the lane of %j is %s', async (more, lane_key) => {
    const made = await createRun(scripted([], { conversation_id: 'c1', ...more }))

    expect(made.lane_key).toBe(lane_key)
    await waitForRun(made.run_id)
  })

  test('a run without a conversation gets one, and a lane of its own', async () => {
    const [one, two] = await createBatch([scripted([]), scripted([])])

    expect(one?.conversation_id).toMatch(/\S/)
    expect(one?.conversation_id).not.toBe(two?.conversation_id)
    expect(one?.lane_key).toBe(`conversation:${one?.conversation_id}`)
  })

  test('enqueue: a lane runs one at a time, in the order of arrival', async () => {
    const lane_key = 'enqueue'
    const holder = await createRun(scripted(long, { lane_key }))
    const single = await createRun(scripted([{ step: 's' }], { lane_key, priority: 1 }))
    const batch = await createBatch(
      [5, 900, 0].map((priority) => scripted([{ step: 's' }], { lane_key, priority })),
    )
    const line = [single, ...batch]
    expect(line.map(({ status }) => status)).toEqual(line.map(() => 'waiting_on_lane'))
    await cancel(holder.run_id)

    const done = await Promise.all(line.map(({ run_id }) => waitForRun(run_id)))
    const starts = done.map(startOf)
    expect(starts).toEqual(starts.toSorted((a, b) => a - b))
    for (const [index, one] of done.entries()) {
      const next = done[index + 1]
      if (next) expect(Date.parse(one['ended_at'])).toBeLessThanOrEqual(startOf(next))
    }
  })

  test('reject: a busy lane is refused with 409 and leaves nothing, a free one is taken', async () => {
    const lane_key = 'reject'
    const body = scripted(long, { lane_key, lane_policy: 'reject' })
    const holder = await post('/runs', body)
    expect(holder.status).toBe(202)

    const refused = await post('/runs', body)

    expectProblem(refused, { status: 409, code: 'lane_busy' })
    expect(refused.body.run_id).toBe(holder.body.run_id)
    expect(await runsIn(lane_key)).toHaveLength(1)
    await cancel(holder.body.run_id)
    await waitForRun(holder.body.run_id)
    const next = await post('/runs', scripted([], { lane_key, lane_policy: 'reject' }))
    expect(next.status).toBe(202)
  })

  test('twenty posts with reject at once: one run', async () => {
    const body = scripted(long, { lane_key: 'reject-at-once', lane_policy: 'reject' })
    const answers = await Promise.all(Array.from({ length: 20 }, () => post('/runs', body)))

    const made = answers.filter(({ status }) => status === 202)
    expect(made).toHaveLength(1)
    expect(await runsIn('reject-at-once')).toHaveLength(1)
    await cancel(made[0]?.body.run_id)
  })

  test('interrupt: the holder is cancelled and the newcomer goes before those that wait', async () => {
    const lane_key = 'interrupt'
    const holder = await createRun(scripted(long, { lane_key }))
    const waiting = await createRun(scripted([], { lane_key }))
    const newcomer = await createRun(scripted([], { lane_key, lane_policy: 'interrupt' }))

    const done = await waitForRun(newcomer.run_id)
    expect(done.status).toBe('completed')
    expect((await run(holder.run_id)).status).toBe('cancelled')
    const asked = (await events(holder.run_id)).filter(
      (event) => event.event_type === 'cancel_requested',
    )
    expect(asked).toMatchObject([{ payload: { reason: expect.stringContaining(newcomer.run_id) } }])
    expect(startOf(await waitForRun(waiting.run_id))).toBeGreaterThanOrEqual(startOf(done))
    const free = await createRun(scripted([], { lane_key: 'free', lane_policy: 'interrupt' }))
    expect((await waitForRun(free.run_id)).status).toBe('completed')
  })

  test('coalesce: the newest waiting run gets the input, nobody waiting: enqueued', async () => {
    const lane_key = 'coalesce'
    const with_ = (text: string) =>
      scripted([{ return: text }], { lane_key, lane_policy: 'coalesce' })
    const holder = await createRun(scripted(long, { lane_key }))
    const first = await post('/runs', with_('first'))
    expect(first.status).toBe(202)
    const newest = await createRun(scripted([{ return: 'newest' }], { lane_key }))

    const response = await post('/runs', with_('replaced'))

    expect(response.status).toBe(200)
    expect(response.headers.get('idempotent-replayed')).toBeNull()
    expect(response.body).toMatchObject({ run_id: newest.run_id, status: 'waiting_on_lane' })
    expect(await runsIn(lane_key)).toHaveLength(3)
    const types = (await events(newest.run_id)).map((event) => event.event_type)
    expect(types.filter((type) => type === 'run_input_replaced')).toHaveLength(1)
    await cancel(holder.run_id)
    expect((await waitForRun(first.body.run_id))['output']).toBe('first')
    expect((await waitForRun(newest.run_id))['output']).toBe('replaced')

    const free = await post('/runs', with_('free'))
    expect(free.status).toBe(202)
    expect((await waitForRun(free.body.run_id))['output']).toBe('free')
  })

  test('forty coalesces at once leave one waiting run, with the input of one of them', async () => {
    const lane_key = 'coalesce-at-once'
    const holder = await createRun(scripted(long, { lane_key }))
    const texts = Array.from({ length: 40 }, (_, n) => `text ${n}`)
    const answers = await Promise.all(
      texts.map((text) =>
        post('/runs', scripted([{ return: text }], { lane_key, lane_policy: 'coalesce' })),
      ),
    )

    expect(answers.filter(({ status }) => status === 202)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(39)
    expect(await runsIn(lane_key)).toHaveLength(2)
    await cancel(holder.run_id)
    expect(texts).toContain((await waitForRun(answers[0]?.body.run_id))['output'])
  })

  test('{"spin": 3000} delays no other run and no /healthz', async () => {
    const spinning = await createRun(scripted([{ spin: 3000 }]))
    await waitForRun(spinning.run_id, { until: ({ status }) => status === 'running' })
    let slowest = 0
    let probes = 0
    const others: Run[] = []
    const watching = eventually(
      async () => {
        const asked = performance.now()
        expect((await fetch(`${service.url}/healthz`)).status).toBe(200)
        slowest = Math.max(slowest, performance.now() - asked)
        probes += 1
        return (await run(spinning.run_id)).status === 'completed'
      },
      { timeoutMs: 25_000, everyMs: 5 },
    )
    for (let n = 0; n < 3; n += 1) {
      const { run_id } = await createRun(scripted([{ step: 's' }, { tool: 't' }]))
      others.push(await waitForRun(run_id))
    }
    await watching

    const spun = await run(spinning.run_id)
    for (const other of others) {
      expect(other.status).toBe('completed')
      expect(Date.parse(other['ended_at'])).toBeLessThan(Date.parse(spun['ended_at']))
    }
    expect(probes).toBeGreaterThan(5)
    expect(slowest).toBeLessThan(1_500)
  })

  test('nothing failed inside', () => {
    expect(service.stderr()).not.toMatch(/"level":"error"/)
  })
})

test('priority orders runs of different lanes', async () => {
  const holder = await narrow.createRun(scripted(long))
  await narrow.waitForRun(holder.run_id, { until: ({ status }) => status === 'running' })
  const line = await narrow.createBatch(
    [0, -5, 9, 9, 3].map((priority) => scripted([{ step: 's' }], { priority })),
  )
  expect(line.map(({ status }) => status)).toEqual(line.map(() => 'queued'))
  await narrow.cancel(holder.run_id)

  const done = await Promise.all(line.map(({ run_id }) => narrow.waitForRun(run_id)))
  const order = done.toSorted((a, b) => startOf(a) - startOf(b)).map((run) => run['priority'])
  expect(order).toEqual([9, 9, 3, 0, -5])
})
