import { createMessageAssembler, type RunDraft, type RunEvent } from 'runlane/client'
import { describe, expect, onTestFinished, test } from 'vitest'
import { scripted, serve } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { allOf, behindProxy, clientOf, failureOf, restartable, restarted } from './setup.ts'

const { service } = await serve('postgres', { env: { RUNLANE_SSE_HEARTBEAT: '100ms' } })
const client = clientOf(service)
const draft = (steps: readonly unknown[], more = {}) => scripted(steps, more) as RunDraft
const idsOf = (events: readonly RunEvent[]): number[] => events.map((event) => event.id)

const finished = async (steps: readonly unknown[], more = {}): Promise<string> => {
  const { run_id } = await client.postRun(draft(steps, more))
  await client.wait(run_id)
  return run_id
}
const longRun = async (more = {}): Promise<string> => {
  const { run_id } = await client.postRun(draft([{ think: 60_000 }], more))
  // Where the test has not ended it itself.
  onTestFinished(() => void client.cancelRun(run_id).catch(() => {}))
  return run_id
}

describe('through kill -9 and restart of the service', () => {
  const words = Array.from({ length: 40 }, (_, n) => `word ${n} ü€😀 `).join('')
  const steps = [
    { say: words, chunks: 30, ms: 3000 },
    { tool: 'search', ms: 500, effects: 'idempotent' },
    { say: 'Done.' },
  ]

  test('every event comes once and in order, and the text is whole', async () => {
    let current = await restartable()
    const reader = clientOf(current)
    const { run_id, conversation_id } = await reader.postRun(draft(steps))
    const assembler = createMessageAssembler()
    const ofRun: RunEvent[] = []
    const disconnects: string[] = []
    let kills = 0

    const onDisconnect = (reason: string): void => void disconnects.push(reason)
    for await (const event of reader.events({
      runId: run_id,
      visibility: 'internal',
      onDisconnect,
    })) {
      ofRun.push(event)
      assembler.add(event)
      const deltas = ofRun.filter(({ event_type }) => event_type === 'message_delta').length
      if ((deltas < 4 || kills > 0) && (deltas < 12 || kills > 1)) continue
      kills += 1
      await current.kill()
      current = await restarted(current)
    }

    expect(kills).toBe(2)
    expect(disconnects.length).toBeGreaterThanOrEqual(2)
    expect(ofRun).toEqual(await api(current).events(run_id))
    expect(ofRun.map((event) => event.sequence)).toEqual(ofRun.map((_, index) => index + 1))
    const texts = [...assembler.messages.values()].map(({ text }) => text)
    expect(texts).toEqual([words, 'Done.'])
    expect(ofRun.at(-1)?.payload).toMatchObject({ to: 'completed' })

    const whole: RunEvent[] = []
    for await (const event of reader.events({ conversationId: conversation_id })) {
      whole.push(event)
      if (event.payload['to'] === 'completed') break
    }
    expect(idsOf(whole)).toEqual(idsOf(ofRun.filter(({ visibility }) => visibility !== 'internal')))
  })

  test('a node that stops says bye, and the reader comes back to the next', async () => {
    const first = await restartable()
    const reader = clientOf(first)
    const told: [string, number][] = []
    const { run_id } = await reader.postRun(draft([{ say: words, chunks: 20, ms: 2500 }]))
    const onDisconnect = (reason: string, ms: number): void => void told.push([reason, ms])
    const stream = reader.events({ runId: run_id, onDisconnect })
    const { value: created } = await stream.next()
    const next = restarted(first)
    const rest = await allOf(stream)

    expect(told[0]).toEqual(['the node stops', expect.any(Number)])
    expect(told[0]?.[1]).toBeGreaterThanOrEqual(1000)
    const stored = await api(await next).events(run_id, { visibility: 'operator' })
    expect([created, ...rest]).toEqual(stored)
  })
})

describe('a connection', () => {
  test('that is cut again and again loses and repeats nothing', async () => {
    const { proxy, client: reader } = await behindProxy(service)
    const steps = Array.from({ length: 6 }, (_, n) => ({ say: `part ${n} `, chunks: 6, ms: 300 }))
    const { run_id } = await client.postRun(draft(steps))
    const seen: RunEvent[] = []
    for await (const event of reader.events({ runId: run_id })) {
      seen.push(event)
      if (seen.length % 9 === 0) proxy.cutAll()
    }
    expect(seen).toEqual(await api(service).events(run_id, { visibility: 'operator' }))
    expect(proxy.accepted()).toBeGreaterThan(3)
  })

  test('without a heartbeat is dead, and is replaced', async () => {
    const { proxy, client: reader } = await behindProxy(service)
    const runId = await longRun()
    const told: string[] = []
    const stream = reader.events({
      ...{ runId, heartbeatTimeoutMs: 500 },
      onDisconnect: (reason) => {
        told.push(reason)
        proxy.freeze(false)
      },
    })
    const first = [await stream.next(), await stream.next()].map(({ value }) => value)
    proxy.freeze(true)
    await client.cancelRun(runId)
    const rest = await allOf(stream)

    expect(told[0]).toBe('no heartbeat came')
    expect(rest.at(-1)?.payload).toMatchObject({ to: 'cancelled' })
    expect([...first, ...rest]).toEqual(
      await api(service).events(runId, { visibility: 'operator' }),
    )
  })

  test('with heartbeats and no events lives on', async () => {
    const { proxy, client: reader } = await behindProxy(service)
    const runId = await longRun()
    const reading = allOf(reader.events({ runId, heartbeatTimeoutMs: 400 }))
    await eventually(() => proxy.open() === 1)
    // Three times the silence that it would not have borne.
    await finished([{ think: 1200 }])
    expect(await client.getRun(runId)).toMatchObject({ status: 'running' })
    await client.cancelRun(runId)
    await reading
    expect(proxy.accepted()).toBe(1)
  })

  test('is closed when the loop is left, also while it waits for an event', async () => {
    const { proxy, client: reader } = await behindProxy(service)
    const runId = await longRun()
    for await (const event of reader.events({ runId })) {
      expect(event.sequence).toBe(1)
      break
    }
    await eventually(() => proxy.open() === 0)

    const after = (await allOf(client.listRunEvents(runId))).at(-1)?.id
    const stream = reader.events({ runId, after })
    const waiting = stream.next()
    await eventually(() => proxy.open() === 1)
    expect(await stream.return?.()).toEqual({ done: true, value: undefined })
    expect(await waiting).toEqual({ done: true, value: undefined })
    expect(await stream.next()).toEqual({ done: true, value: undefined })
    await eventually(() => proxy.open() === 0)
  })

  test('ends with the signal, by its reason', async () => {
    const { proxy, client: reader } = await behindProxy(service)
    const runId = await longRun()
    const controller = new AbortController()
    const reading = failureOf(allOf(reader.events({ runId, signal: controller.signal })))
    await eventually(() => proxy.open() === 1)
    const reason = new Error('enough')
    controller.abort(reason)
    expect(await reading).toBe(reason)
    await eventually(() => proxy.open() === 0)
  })

  test('to a service that stays away is given up after the outage that was granted', async () => {
    const { proxy, client: reader } = await behindProxy(service, { outageMs: 1200 })
    proxy.refuse(true)
    const error = await failureOf(allOf(reader.events({ runId: await longRun() })))
    expect(error).toMatchObject({ code: 'unreachable', status: undefined })
    expect(proxy.refused()).toBeGreaterThan(1)
  })
})

describe('a cursor', () => {
  test('goes on after an event, by its id or its sequence', async () => {
    const runId = await finished([{ say: 'Hi' }, { tool: 't' }], { conversation_id: 'cursor' })
    const all = await allOf(client.events({ runId, visibility: 'internal' }))
    const third = all[2]
    const read = (more: object) => allOf(client.events({ runId, visibility: 'internal', ...more }))

    expect(await read({ after: 0 })).toEqual(all)
    expect(await read({ after: third?.id })).toEqual(all.slice(3))
    expect(await read({ afterSequence: 3 })).toEqual(all.slice(3))
    expect(await read({ after: all.at(-1)?.id })).toEqual([])
    expect(await read({ afterSequence: all.length })).toEqual([])
  })

  test('of a list joins the stream of everything without a gap', async () => {
    const pages = client.listRuns({ pageSize: 1 }).pages()
    let cursor = 0
    for await (const page of pages) {
      ;({ cursor } = page)
      break
    }
    const runId = await finished([{ say: 'Hi' }])
    const seen: RunEvent[] = []
    for await (const event of client.events({ after: cursor })) {
      if (event.run_id === runId) seen.push(event)
      if (event.run_id === runId && event.payload['to'] === 'completed') break
    }
    expect(seen).toEqual(await api(service).events(runId, { visibility: 'operator' }))
  })

  test('that is no good ends with stream_reset, or goes on from where onReset says', async () => {
    const runId = await finished([{ say: 'Hi' }])
    const after = 999_999_999_999
    expect(await failureOf(allOf(client.events({ runId, after })))).toMatchObject({
      ...{ code: 'stream_reset', status: undefined },
    })
    const asked: unknown[] = []
    const onReset = (last: number | undefined): number => {
      asked.push(last)
      return 0
    }
    const all = await allOf(client.events({ runId, after, onReset }))
    expect(all).toEqual(await api(service).events(runId, { visibility: 'operator' }))
    expect(asked).toEqual([after])
    const bySequence = await allOf(client.events({ runId, afterSequence: 9_999, onReset }))
    expect(bySequence).toEqual(all)
  })

  test('ends nothing of a run that goes on after it was resumed', async () => {
    const runId = await finished([{ fail: 'no' }])
    const before = await allOf(client.events({ runId }))
    expect(before.at(-1)?.payload).toMatchObject({ to: 'failed' })
    await client.resumeRun(runId, { waitMs: 10_000 })

    const all = await allOf(client.events({ runId }))
    expect(all.slice(0, before.length)).toEqual(before)
    expect(all.filter(({ payload }) => payload['to'] === 'failed')).toHaveLength(2)
  })
})

test('what is refused for good is not asked for again', async () => {
  let asked = 0
  const counted: typeof fetch = (input, init) => {
    asked += 1
    return fetch(input, init)
  }
  const reader = clientOf(service, { fetch: counted })
  const gone = await failureOf(allOf(reader.events({ runId: 'run_none' })))
  expect(gone).toMatchObject({ status: 404, code: 'not_found' })
  const strange = { conversationId: 'c', visibility: 'all' as 'user' }
  const refused = await failureOf(allOf(reader.events(strange)))
  expect(refused).toMatchObject({ status: 422, errors: [{ path: 'visibility' }] })
  expect(asked).toBe(2)
})
