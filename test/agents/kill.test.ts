import postgres from 'postgres'
import { beforeAll, expect, test } from 'vitest'
import type { RunEvent } from '../support/api.ts'
import { assemble } from '../support/assemble.ts'
import { readSse } from '../support/sse.ts'
import { ask, lookup, loopOutside, serveLoop, type ServedLoop } from './loop-setup.ts'

/**
 * One run of the built-in loop (two model calls that stream, two tools at once between them), killed once after each of
 * its commits: events of one commit cannot be parted. Two services on databases of their own share the work.
 */
const outside = await loopOutside()
const { model, effects } = outside
const lanes = await Promise.all([1, 2].map(() => serveLoop(outside, { RUNLANE_LEASE: '1s' })))

const ANSWER = 'Both are known by now: the first is A and the second is B.'
const post = async ({ createRun }: ServedLoop, key: string): Promise<string> => {
  model.script(key, [
    {
      text: 'I look both of them up, one moment please.',
      calls: [
        lookup('a', { id: 'call_0', delay_ms: 160 }),
        lookup('b', { id: 'call_1', delay_ms: 80 }),
      ],
      chunk: 10,
      everyMs: 40,
      usage: [10, 5],
    },
    { text: ANSWER, chunk: 10, everyMs: 40, usage: [20, 7] },
  ])
  return (await createRun(ask('chat', key))).run_id
}

const toolCalls = (run_id: string, tool_call_id: string): number =>
  effects.calls.filter((call) => call.idempotencyKey === `${run_id}:${tool_call_id}`).length

const TOOLS = ['tool_2', 'tool_3']
const MODEL_CALLS = ['model_1', 'model_4']

/** How often each call was made so far. */
const made = (run_id: string, key: string): Record<string, number> =>
  Object.fromEntries([
    ...MODEL_CALLS.map((id, turn) => [id, model.requestsOf(key, turn).length]),
    ...TOOLS.map((id) => [id, toolCalls(run_id, id)]),
  ])

interface Death {
  event: number
  /** Outcomes of the calls that were recorded when the service died. */
  recorded: Record<string, string>
  before: Record<string, number>
  after: Record<string, number>
  run: Awaited<ReturnType<ServedLoop['waitForRun']>>
  events: RunEvent[]
}

const killAt = async (lane: ServedLoop, sql: postgres.Sql, event: number): Promise<Death> => {
  const key = `killed at event ${event}`
  const run_id = await post(lane, key)
  const { url, token } = lane.service()
  const stream = readSse({ url: `${url}/runs/${run_id}/agent-events?visibility=internal`, token })
  for await (const { data } of stream) {
    if (data !== undefined && (JSON.parse(data) as RunEvent).sequence >= event) break
  }
  await lane.kill()
  const rows = await sql<{ tool_call_id: string; outcome: string }[]>`
    select tool_call_id, outcome from runlane.agent_tool_results where run_id = ${run_id}`
  const before = made(run_id, key)
  await lane.restart()
  return {
    event,
    recorded: Object.fromEntries(rows.map((row) => [row.tool_call_id, row.outcome])),
    before,
    run: await lane.waitForRun(run_id),
    after: made(run_id, key),
    events: await lane.events(run_id),
  }
}

let reference: RunEvent[]
/** The last event of each commit of the undisturbed run. */
let points: number[]
const deaths: Death[] = []

beforeAll(async () => {
  const [first] = lanes
  if (!first) throw new Error('no service')
  const run_id = await post(first, 'undisturbed')
  expect((await first.waitForRun(run_id)).output).toEqual({ text: ANSWER })
  reference = await first.events(run_id)
  points = reference
    .filter(({ created_at }, n) => created_at !== reference[n + 1]?.created_at)
    .map(({ sequence }) => sequence)
  const left = [...points]
  await Promise.all(
    lanes.map(async (lane) => {
      const sql = postgres(lane.databaseUrl, { max: 1 })
      for (let event = left.shift(); event !== undefined; event = left.shift())
        deaths.push(await killAt(lane, sql, event))
      await sql.end()
    }),
  )
}, 150_000)

const isRecorded = ({ recorded }: Death, id: string): boolean => recorded[id] === 'succeeded'

test('the service died after every commit, in the middle of each kind of call and between them', () => {
  expect(deaths.map(({ event }) => event).toSorted((a, b) => a - b)).toEqual(points)
  expect(points.length).toBeGreaterThanOrEqual(12)
  for (const id of [...MODEL_CALLS, ...TOOLS])
    expect(
      deaths.some(({ recorded }) => recorded[id] === 'started'),
      `died in ${id}`,
    ).toBe(true)
})

test('every run ends with the same answer, in its second attempt', () => {
  for (const { run, event, recorded } of deaths) {
    const usage = { input_tokens: 30, output_tokens: 12 }
    const wanted = { status: 'completed', output: { text: ANSWER }, error_code: null, usage }
    expect(run, `killed at ${event} with ${JSON.stringify(recorded)}`).toMatchObject(wanted)
    expect(run.attempt).toBeLessThanOrEqual(2)
  }
  expect(deaths.filter(({ run }) => run.attempt === 2).length).toBeGreaterThan(8)
})

test('a recorded call is never made again, and any other exactly once more', () => {
  for (const death of deaths) {
    const again = (id: string): number => (death.after[id] ?? 0) - (death.before[id] ?? 0)
    for (const id of [...MODEL_CALLS, ...TOOLS]) {
      const what = `${id}, killed at ${death.event} with ${JSON.stringify(death.recorded)}`
      expect(again(id), what).toBe(isRecorded(death, id) ? 0 : 1)
      expect(death.before[id], what).toBeLessThanOrEqual(1)
    }
  }
})

test('events are gap-free, each message is told once, and readers have its text', () => {
  for (const { events, event } of deaths) {
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, n) => n + 1))
    const payloads = (type: string) =>
      events.filter(({ event_type }) => event_type === type).map(({ payload }) => payload)
    const messages = payloads('message').map(({ message_id, text }) => [message_id, text])
    expect(messages).toHaveLength(2)
    expect(assemble(payloads('message_delta')), `killed at ${event}`).toEqual(
      Object.fromEntries(messages),
    )
    const finished = payloads('tool_finished').filter(({ outcome }) => outcome === 'succeeded')
    expect(finished).toHaveLength(TOOLS.length)
    expect(new Set(finished.map(({ tool_call_id }) => tool_call_id))).toEqual(new Set(TOOLS))
  }
})
