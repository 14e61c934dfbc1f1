import { expect, test } from 'vitest'
import { assemble, type Delta, payloadsOf } from '../support/assemble.ts'
import { eventually } from '../support/eventually.ts'
import { seeded } from '../support/random.ts'
import { type Followed, followWithReconnects } from '../support/sse.ts'
import { ask, lookup, loopOutside, serveLoop } from './loop-setup.ts'

const SEED = Number(process.env['STREAM_SEED'] ?? Date.now() % 1_000_000)
const READERS = 4

const served = await serveLoop(await loopOutside(), { RUNLANE_LEASE: '1s' })
const { model, createRun, waitForRun, events, kill, restart } = served

type Message = { text: string; message_id: string }
const words = (from: number, to: number): string =>
  Array.from({ length: to - from }, (_, n) => `word ${from + n}, `).join('')

const deltasOf = async (run_id: string): Promise<(Delta & { at: number })[]> =>
  (await events(run_id))
    .filter((event) => event.event_type === 'message_delta')
    .map(({ payload, created_at }) => ({ ...payload, at: Date.parse(created_at) }))

/** Reads the run as several people on bad lines do, each with luck of their own, from the first event to the last. */
const readers = (run_id: string): Promise<Followed[]> => {
  const { url, token } = served.service()
  const follow = (_: unknown, n: number): Promise<Followed> =>
    followWithReconnects({
      url: `${url}/runs/${run_id}/agent-events?visibility=user`,
      token,
      random: seeded(SEED + n),
      maxEvents: 6,
      timeoutMs: 25_000,
      until: ({ data }) => /"to":"(completed|failed)"/.test(data ?? ''),
    })
  return Promise.all(Array.from({ length: READERS }, follow))
}

const expectWhole = (followed: readonly Followed[], wanted: readonly string[]): void => {
  for (const { ids, events: frames } of followed) {
    const numbers = ids.map(Number)
    expect(numbers, `seed ${SEED}`).toEqual([...new Set(numbers)].toSorted((a, b) => a - b))
    const assembled = assemble(payloadsOf<Delta>(frames, 'message_delta'))
    const messages = payloadsOf<Message>(frames, 'message')
    expect(assembled, `seed ${SEED}`).toEqual(
      Object.fromEntries(messages.map(({ message_id, text }) => [message_id, text])),
    )
    expect(messages.map(({ text }) => text)).toEqual(wanted)
    expect(ids).toEqual(followed[0]?.ids)
  }
}

const killAfter = async (run_id: string, message_id: string, deltas: number): Promise<void> => {
  await eventually(async () => {
    const seen = await deltasOf(run_id)
    return seen.filter((delta) => delta.message_id === message_id).length >= deltas
  })
  await kill()
  await restart()
}

test('readers that come and go, through kill -9 as well, end with exactly the text of the run', async () => {
  const [looking, answer] = [words(0, 60), words(100, 180)]
  model.script('long stream', [
    { text: looking, calls: [lookup('a')], everyMs: 25 },
    { text: answer, everyMs: 25 },
  ])
  const { run_id } = await createRun(ask('chat', 'long stream'))
  const followed = readers(run_id)
  await killAfter(run_id, 'model_1', 4)
  await killAfter(run_id, 'model_3', 4)
  const run = await waitForRun(run_id)
  expect(run).toMatchObject({ status: 'completed', output: { text: answer }, attempt: 3 })
  expectWhole(await followed, [looking, answer])
  expect((await followed).every(({ connections }) => connections > 3)).toBe(true)

  // The model says the same again: its stream goes on behind what readers have, nothing is sent twice.
  const all = await deltasOf(run_id)
  expect(
    all
      .filter(({ message_id }) => message_id === 'model_1')
      .map(({ text }) => text)
      .join(''),
  ).toBe(looking)
  expect(model.requestsOf('long stream').map(({ turn }) => turn)).toEqual([0, 0, 1, 1])
})

test('a model that says something else after a crash starts its message over', async () => {
  const answer = `${words(0, 3)}and quite another end. ${words(200, 230)}`
  model.script('other words', [{ text: words(0, 80), everyMs: 25, again: { text: answer } }])
  const { run_id } = await createRun(ask('chat', 'other words'))
  const followed = readers(run_id)
  await killAfter(run_id, 'model_1', 5)
  expect(await waitForRun(run_id)).toMatchObject({ status: 'completed', output: { text: answer } })
  expectWhole(await followed, [answer])
  const restarts = (await deltasOf(run_id)).filter(({ offset }) => offset === 0)
  expect(restarts).toHaveLength(2)
})

test('a stream that broke off goes on where it was when the run is resumed', async () => {
  const answer = words(0, 40)
  model.script('broken', [{ text: answer, everyMs: 20, cutAfterChunks: 12 }])
  const { run_id } = await createRun(ask('chat', 'broken'))
  const first = await readers(run_id)
  expect(await waitForRun(run_id)).toMatchObject({ status: 'failed', error_code: 'network' })
  model.replace('broken', 0, { text: answer })
  await served.resume(run_id)
  expect(await waitForRun(run_id)).toMatchObject({ status: 'completed', output: { text: answer } })
  const all = await deltasOf(run_id)
  expect(all.map(({ text }) => text).join('')).toBe(answer)
  expect(payloadsOf(first[0]?.events ?? [], 'message')).toEqual([])
})

test('an answer without words voids what was streamed of the one before it', async () => {
  model.script('void', [
    { text: words(0, 40), everyMs: 20, cutAfterChunks: 12 },
    { text: 'Found it.' },
  ])
  const { run_id } = await createRun(ask('chat', 'void'))
  expect(await waitForRun(run_id)).toMatchObject({ status: 'failed', error_code: 'network' })
  expect(assemble(await deltasOf(run_id))['model_1']).toMatch(/^word 0/)
  model.replace('void', 0, { calls: [lookup('a')] })
  await served.resume(run_id)
  expect(await waitForRun(run_id)).toMatchObject({ output: { text: 'Found it.' } })
  expect(assemble(await deltasOf(run_id))).toEqual({ model_1: '', model_3: 'Found it.' })
})

test('characters that the wire cuts in half arrive whole', async () => {
  const answer = 'Grüße 👩‍🚀🎉, '.repeat(20)
  model.script('emoji', [{ text: answer, chunk: 1, everyMs: 2 }])
  const { run_id } = await createRun(ask('chat', 'emoji'))
  expectWhole(await readers(run_id), [answer])
  for (const { text } of await deltasOf(run_id)) expect(text.isWellFormed()).toBe(true)
})

test('a cancel in the middle of a stream ends the run as cancelled, and nothing else', async () => {
  const keys = Array.from({ length: 8 }, (_, n) => `cancelled ${n}`)
  const runs = await Promise.all(
    keys.map((key) => {
      model.script(key, [{ text: words(0, 400), everyMs: 5 }])
      return createRun(ask('chat', key))
    }),
  )
  await Promise.all(
    runs.map(async ({ run_id }, n) => {
      await eventually(async () => (await deltasOf(run_id)).length > n)
      await served.cancel(run_id)
    }),
  )
  for (const { run_id } of runs) {
    expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled', error_code: null })
    const last = (await events(run_id)).at(-1)
    expect(last).toMatchObject({ event_type: 'run_status_changed', payload: { to: 'cancelled' } })
  }
  expect(served.service().stderr()).not.toContain('nobody caught')
})

test('half a character that stays alone is replaced, the rest arrives', async () => {
  model.script('half', [{ text: 'One \ud83d two.', chunk: 3, everyMs: 10 }])
  const { run_id } = await createRun(ask('chat', 'half'))
  expect(await waitForRun(run_id)).toMatchObject({ output: { text: 'One \ufffd two.' } })
  expectWhole(await readers(run_id), ['One \ufffd two.'])
})

test('a run streams at most ten deltas in any second, however fast its models are', async () => {
  const long = words(0, 900)
  const fast = { text: long, chunk: 8, everyMs: 2 }
  for (const key of ['fast', 'fast 1', 'fast 2']) model.script(key, [fast])
  const runs = [ask('chat', 'fast'), { agent: 'pair', input: ['fast 1', 'fast 2'] }]
  const posted = await Promise.all(runs.map((run) => createRun(run)))
  for (const { run_id } of posted) {
    expect((await waitForRun(run_id)).status).toBe('completed')
    const times = (await deltasOf(run_id)).map(({ at }) => at)
    expect(times.length).toBeGreaterThan(20)
    const spans = times.slice(10).map((at, n) => at - (times[n] ?? 0))
    expect(Math.min(...spans), JSON.stringify(spans)).toBeGreaterThanOrEqual(1000)
  }
})
