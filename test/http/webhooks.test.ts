import { verifyWebhook } from 'runlane/client'
import { afterAll, describe, expect, test } from 'vitest'
import { judgeOf } from '../support/answer-judge.ts'
import type { Json, Run } from '../support/api.ts'
import { type Contract, contractOf, type Route } from '../support/contract.ts'
import { eventually } from '../support/eventually.ts'
import { type Receiver, startReceiver, WEBHOOK_SECRET } from '../support/webhook-receiver.ts'
import { DATABASES, expectProblem, scripted, serve, serveOnBoth } from './setup.ts'

const receiver: Receiver = await startReceiver()
/** That of all runs: its address has to be known when the services start. */
const all: Receiver = await startReceiver()
const env = {
  RUNLANE_WEBHOOK_SECRET: WEBHOOK_SECRET,
  RUNLANE_WEBHOOK_URLS: `${all.url}/all`,
  RUNLANE_WATCHDOG_TOOL: '300ms',
  RUNLANE_WATCHDOG_INTERVAL: '50ms',
}
const both = await serveOnBoth({ env })
const unsigned = await serve('postgres')
afterAll(async () => {
  expect([...receiver.problems, ...all.problems]).toEqual([])
  await receiver.close()
  await all.close()
})

/** The notices that have come for a run, once all these types are among them: they come in no order. */
const told = (run: Run, types: readonly string[], from = receiver) =>
  eventually(
    () => {
      const of = from.deliveries.filter(({ event }) => event.subject === run.run_id)
      return types.every((type) => of.some(({ event }) => event.type === type)) && of
    },
    { message: `${types.join(', ')} of ${run.run_id}` },
  )
const COMPLETED = ['runlane.run.completed']

describe.each(DATABASES)('on %s', (database) => {
  const { createRun, cancel, run: read, events } = both[database]
  const post = (steps: readonly unknown[], more: Record<string, unknown> = {}) =>
    createRun(scripted(steps, { callback_url: `${receiver.url}/runs`, ...more }))

  test('the end of a run is told as a signed CloudEvent with the run as it ended', async () => {
    const run = await post([{ return: { answer: 42 } }], { metadata: { order: 7 }, owner: '@ana' })
    const [delivery, ...others] = await told(run, COMPLETED)

    expect(others).toEqual([])
    const { input: _input, cancel: _cancel, age_ms, ...ended } = (await read(run.run_id)) as Json
    expect(delivery?.event).toMatchObject({
      specversion: '1.0',
      source: `/runs/${run.run_id}`,
      subject: run.run_id,
      datacontenttype: 'application/json',
      data: { ...ended, output: { answer: 42 }, output_omitted: false },
    })
    expect(delivery?.event.data.age_ms).toBe(age_ms)
    expect(delivery?.event.data).not.toHaveProperty('input')
    const [told_of] = (await events(run.run_id)).filter(
      ({ event_type, payload }) =>
        event_type === 'run_status_changed' && payload['to'] === 'completed',
    )
    expect(delivery?.event).toMatchObject({
      id: String(told_of?.id),
      time: told_of?.created_at,
      data: {
        event: {
          event_type: 'run_status_changed',
          sequence: told_of?.sequence,
          payload: { from: 'running', to: 'completed' },
        },
      },
    })
    const verified = verifyWebhook(delivery?.headers ?? {}, delivery?.body ?? '', WEBHOOK_SECRET)
    expect(verified).toEqual(JSON.parse(delivery?.body ?? ''))
  })

  test('every other end is told under its own name', async () => {
    const failed = await post([{ fail: 'no luck' }])
    const cancelled = await post([{ think: 60_000 }])
    const waiting = await post([], { run_at: new Date(Date.now() + 3_600_000).toISOString() })
    await cancel(cancelled.run_id)
    await cancel(waiting.run_id)

    const [ofFailed] = await told(failed, ['runlane.run.failed'])
    expect(ofFailed?.event.data).toMatchObject({
      status: 'failed',
      error_message: expect.stringContaining('no luck'),
      metadata: { resume_available: true },
      output: null,
      output_omitted: false,
    })
    for (const run of [cancelled, waiting]) {
      const [ofCancelled] = await told(run, ['runlane.run.cancelled'])
      expect(ofCancelled?.event.data).toMatchObject({ status: 'cancelled' })
    }
  })

  test('a run that is stuck, and one that has recovered, are told of', async () => {
    const run = await post([{ tool: 'slow', ms: 1_500 }])

    const notices = await told(run, [...COMPLETED, 'runlane.run.stuck', 'runlane.run.recovered'])

    const byType = new Map(notices.map(({ event }) => [event.type, event.data]))
    expect(byType.get('runlane.run.stuck')).toMatchObject({
      status: 'waiting_on_tool',
      stuck_reason: 'tool_call.timeout(300ms)',
      event: { event_type: 'run_stuck', payload: { clock: 'tool', limit_ms: 300 } },
    })
    expect(byType.get('runlane.run.recovered')).toMatchObject({
      stuck_reason: null,
      event: { event_type: 'run_recovered', payload: { stuck_reason: 'tool_call.timeout(300ms)' } },
    })
  })

  test('the verdict of the watchdog is told of', async () => {
    const steps = [{ tool: 'never', hang: true }]
    const run = await post(steps, { execution_timeout_override: '200ms' })

    const notices = await told(run, ['runlane.run.failed', 'runlane.run.watchdog_verdict'])

    const verdict = notices.find(({ event }) => event.type === 'runlane.run.watchdog_verdict')
    expect(verdict?.event.data).toMatchObject({
      event: {
        event_type: 'watchdog_verdict',
        payload: { action: 'auto_terminate', result: 'ended' },
      },
    })
  })

  test('an output of up to 64 kB is told, a larger one is left out and said to be', async () => {
    const small = await post([{ return: 'x'.repeat(65_000) }])
    const large = await post([{ return: 'x'.repeat(66_000) }])

    const [ofSmall] = await told(small, COMPLETED)
    expect(ofSmall?.event.data).toMatchObject({ output: 'x'.repeat(65_000), output_omitted: false })
    const [ofLarge] = await told(large, COMPLETED)
    expect(ofLarge?.event.data).toMatchObject({ output: null, output_omitted: true })
  })

  test('endpoints of the service are told of every run, and a receiver that is both is told once', async () => {
    const plain = await createRun(scripted([{ return: 1 }]))
    const twice = await createRun(scripted([{ return: 2 }], { callback_url: `${all.url}/all` }))
    const other = await post([{ return: 3 }])

    for (const run of [plain, twice, other]) expect(await told(run, COMPLETED, all)).toHaveLength(1)
    expect(await told(other, COMPLETED)).toHaveLength(1)
  })
})

test('every notice that came fits the contract, and the contract names every type', async () => {
  const contract = (await contractOf(both.postgres.service.url)) as Contract & { webhooks: Json }
  const { requestBody } = contract.webhooks.notice.post
  const content = { 'application/json': requestBody.content['application/cloudevents+json'] }
  const route = { operation: { responses: { 200: { description: '', content } } } }
  const judge = judgeOf(contract)
  const came = [...receiver.deliveries, ...all.deliveries]

  const misfits = came.flatMap(
    ({ body: text }) =>
      judge(
        { status: 200, contentType: 'application/json', text },
        route as unknown as Route,
        'GET',
      ) ?? [],
  )

  expect(misfits).toEqual([])
  expect(new Set(came.map(({ event }) => event.type)).size).toBeGreaterThan(5)
})

describe('a callback_url is refused', () => {
  const { post } = both.postgres
  const refused = async (callback_url: unknown) => {
    const response = await post('/runs', scripted([], { callback_url }))
    expectProblem(response, { status: 422, code: 'validation_error', paths: ['callback_url'] })
    return response.body.errors[0].message as string
  }

  test.each([
    'http://10.0.0.1/hook',
    'http://[fd00::1]/hook',
    'https://169.254.169.254/latest/meta-data',
    'http://[::ffff:192.168.0.1]/',
    'http://0x0a000001/',
  ])('when it is a private address: %s', async (url) => {
    expect(await refused(url)).toMatch(/private address .*RUNLANE_WEBHOOK_ALLOW/)
  })

  test.each([
    '',
    'no url',
    'ftp://a.test/',
    'http://u:p@a.test/',
    `http://a.test/${'x'.repeat(2_048)}`,
    7,
    {},
  ])('when it cannot be one: %s', async (url) => void (await refused(url)))

  test('in a batch, and nothing of the batch is made', async () => {
    const runs = [scripted([]), scripted([], { callback_url: 'http://10.0.0.1/' })]
    const response = await post('/runs/batch', { runs })
    const paths = ['runs[1].callback_url']
    expectProblem(response, { status: 422, code: 'validation_error', paths })
  })

  test('by a service that has no secret to sign with, which it names', async () => {
    const response = await unsigned.post('/runs', scripted([], { callback_url: receiver.url }))
    expectProblem(response, { status: 422, code: 'validation_error', paths: ['callback_url'] })
    expect(response.body.errors[0].message).toContain('RUNLANE_WEBHOOK_SECRET')
    expect((await unsigned.post('/runs', scripted([], { callback_url: null }))).status).toBe(202)
  })
})
