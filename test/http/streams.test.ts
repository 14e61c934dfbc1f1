import { describe, expect, onTestFinished, test } from 'vitest'
import { api, type RunEvent } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { collectUntil, readSse, type SseFrame, SseRefused, type SseStream } from '../support/sse.ts'
import { DATABASES, scripted, serveOnBoth } from './setup.ts'

const served = await serveOnBoth({ env: { RUNLANE_SSE_HEARTBEAT: '100ms' } })

const eventsOf = (frames: readonly SseFrame[]): RunEvent[] =>
  frames.flatMap(({ id, data }) => (id === undefined ? [] : [JSON.parse(data ?? '')]))
const idsOf = (frames: readonly SseFrame[]): number[] => eventsOf(frames).map((event) => event.id)

/** All frames up to the server's own end of the stream. */
const readAll = async (stream: SseStream): Promise<SseFrame[]> => {
  const frames: SseFrame[] = []
  const late = setTimeout(() => stream.close(), 20_000)
  for await (const frame of stream) frames.push(frame)
  clearTimeout(late)
  return frames
}

describe.each(DATABASES)('on %s', (database) => {
  const { service, createRun, createBatch, waitForRun, events, cancel, get } = served[database]

  const open = (path: string, lastEventId?: string): SseStream => {
    const stream = readSse({ url: service.url + path, token: service.token, lastEventId })
    onTestFinished(() => stream.close())
    return stream
  }
  const finished = async (steps: readonly unknown[], more = {}): Promise<string> => {
    const { run_id } = await createRun(scripted(steps, more))
    await waitForRun(run_id)
    return run_id
  }
  const steps = [{ say: 'Hello you', chunks: 3 }, { tool: 't' }, { journal: { next_action: 'x' } }]

  test('the stream of a terminal run replays it as it is listed, then ends', async () => {
    const run_id = await finished(steps)
    for (const visibility of ['user', 'operator', 'internal'] as const) {
      const listed = await events(run_id, { visibility })
      const query = `visibility=${visibility}`
      const frames = await readAll(open(`/runs/${run_id}/agent-events?${query}`))

      expect(eventsOf(frames)).toEqual(listed)
      expect(frames.filter((frame) => frame.id !== undefined).map((frame) => frame.id)).toEqual(
        listed.map((event) => String(event.id)),
      )
      expect(frames.every((frame) => frame.event === undefined)).toBe(true)
    }
    const frames = await readAll(open(`/runs/${run_id}/agent-events`))
    expect(eventsOf(frames)).toEqual(await events(run_id, { visibility: 'operator' }))
    expect(Object.keys(eventsOf(frames)[0] ?? {}).toSorted()).toEqual(
      [
        ...['id', 'event_type', 'run_id', 'conversation_id', 'sequence', 'visibility'],
        ...['payload', 'created_at'],
      ].toSorted(),
    )
  })

  test('each level of visibility shows what the one below it does, and more', async () => {
    const run_id = await finished(steps)
    const types = async (visibility: 'user' | 'operator' | 'internal'): Promise<string[]> => {
      const all = await events(run_id, { visibility })
      return [...new Set(all.map((event) => event.event_type))].toSorted()
    }
    const user = ['message', 'message_delta', 'run_created', 'run_status_changed']
    const operator = [...user, 'journal_updated', 'tool_finished', 'tool_started']
    const internal = [...operator, 'checkpoint_created', 'lease_acquired']

    expect(await types('user')).toEqual(user.toSorted())
    expect(await types('operator')).toEqual(operator.toSorted())
    expect(await types('internal')).toEqual(internal.toSorted())
  })

  test('a cursor continues after it: Last-Event-ID before after_event_id before after_sequence', async () => {
    const run_id = await finished(steps)
    const path = `/runs/${run_id}/agent-events?visibility=internal`
    const all = await events(run_id)
    const [third = 0, fifth = 0, last = 0] = [all[2]?.id, all[4]?.id, all.at(-1)?.id]
    const after = (id: number): number[] => all.map((one) => one.id).filter((one) => one > id)
    const read = async (query: string, header?: string): Promise<number[]> =>
      idsOf(await readAll(open(path + query, header)))

    expect(await read('', String(third))).toEqual(after(third))
    expect(await read(`&after_event_id=${third}`)).toEqual(after(third))
    expect(await read('&after_sequence=3')).toEqual(after(third))
    expect(await read(`&after_event_id=${third}&after_sequence=0`, String(fifth))).toEqual(
      after(fifth),
    )
    expect(await read(`&after_event_id=${fifth}&after_sequence=3`)).toEqual(after(fifth))
    expect(await read('', '0')).toEqual(after(0))
    expect(await read('', String(last))).toEqual([])
    expect(await read(`&after_sequence=${all.length}`)).toEqual([])
  })

  test('a cursor that is garbage is refused with 400, one ahead of the log is answered with reset', async () => {
    const run_id = await finished([])
    const paths = [
      `/runs/${run_id}/agent-events`,
      '/conversations/none/agent-events',
      '/agent-events',
    ]
    for (const path of paths) {
      for (const garbage of ['x', '-1', '1.5', '1e3', '99999999999999999999', '1 2']) {
        const header = await open(path, garbage)
          .next()
          .catch((error: unknown) => error)
        expect(header).toBeInstanceOf(SseRefused)
        expect(header).toMatchObject({ status: 400, body: expect.stringContaining('bad_request') })
        // A sequence is one of a run: elsewhere nobody looks at it.
        const names = path.startsWith('/runs/')
          ? ['after_event_id', 'after_sequence']
          : ['after_event_id']
        for (const name of names) {
          const refused = await open(`${path}?${name}=${encodeURIComponent(garbage)}`)
            .next()
            .catch((error: unknown) => error)
          expect(refused).toMatchObject({ status: 400 })
        }
      }
      const frames = await readAll(open(path, '999999999999'))
      expect(frames.filter((frame) => frame.comment === undefined)).toMatchObject([
        { event: 'reset' },
      ])
    }
  })

  test('a live stream shows a run from its first event to its end, then ends', async () => {
    const { run_id } = await createRun(scripted([{ think: 300 }, ...steps]))
    const frames = await readAll(open(`/runs/${run_id}/agent-events?visibility=internal`))

    expect(eventsOf(frames)).toEqual(await events(run_id))
    expect(eventsOf(frames).at(-1)?.payload).toMatchObject({ to: 'completed' })
  })

  test('the stream of a conversation has its runs and no others, and stays open', async () => {
    const conversation_id = `feed-${database}`
    const stream = open(`/conversations/${conversation_id}/agent-events`)
    await stream.next()
    const first = await finished([], { conversation_id })
    await finished([])
    const second = await finished([{ tool: 't' }], { conversation_id, lane_key: 'another' })

    const isEnd = (frame: SseFrame, run_id: string): boolean => {
      const [event] = eventsOf([frame])
      return event?.run_id === run_id && event.payload.to === 'completed'
    }
    const frames = await collectUntil(stream, (frame) => isEnd(frame, second), 20_000)
    const operator = { visibility: 'operator' } as const
    expect(eventsOf(frames)).toEqual([
      ...(await events(first, operator)),
      ...(await events(second, operator)),
    ])
    const third = await finished([], { conversation_id })
    await collectUntil(stream, (frame) => isEnd(frame, third), 20_000)

    const ofOne = `/conversations/${conversation_id}/agent-events?run_id=${first}`
    expect(eventsOf(await readAll(open(ofOne)))).toEqual(await events(first, operator))
    const afterSequence = open(`/conversations/${conversation_id}/agent-events?after_sequence=4`)
    const replayed = await collectUntil(afterSequence, (frame) => isEnd(frame, first), 20_000)
    expect(idsOf(replayed)[0]).toBe(idsOf(frames)[0])
  })

  test('the global feed has every run', async () => {
    const stream = open('/agent-events?visibility=user')
    const made = await createBatch(Array.from({ length: 20 }, () => scripted([{ tool: 't' }])))
    const left = new Set(made.map((run) => run.run_id))
    const frames = await collectUntil(
      stream,
      (frame) => {
        const [event] = eventsOf([frame])
        if (event?.payload.to === 'completed') left.delete(event.run_id)
        return left.size === 0
      },
      20_000,
    )

    const ids = idsOf(frames)
    expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b))
    expect(new Set(eventsOf(frames).map((event) => event.visibility))).toEqual(new Set(['user']))
  })

  test('an idle stream beats', async () => {
    const stream = open('/conversations/idle/agent-events')
    const beats = (all: readonly SseFrame[]): number =>
      all.filter((frame) => frame.comment === 'heartbeat').length

    const frames = await collectUntil(stream, (_frame, all) => beats(all) === 3)
    expect(eventsOf(frames)).toEqual([])
  })

  test('what was listed and what the stream shows after it join without a gap while runs write', async () => {
    const busy = Array.from({ length: 60 }, (_, n) => ({ step: `s${n}`, ms: n % 3 }))
    const made = await createBatch(Array.from({ length: 8 }, () => scripted(busy)))
    await Promise.all(
      made.map(async ({ run_id }, n) => {
        const listed = await eventually(async () => {
          const all = await events(run_id)
          return all.length > 5 + 10 * n && all
        })
        const cursor = String(listed.at(-1)?.id)
        const path = `/runs/${run_id}/agent-events?visibility=internal`
        const rest = eventsOf(await readAll(open(path, cursor)))
        const sequences = [...listed, ...rest].map((event) => event.sequence)
        expect(sequences).toEqual(sequences.map((_, index) => index + 1))
        expect(rest.at(-1)?.payload).toMatchObject({ to: 'completed' })
      }),
    )
  })

  test('many readers of one run see the same', async () => {
    const { run_id } = await createRun(scripted([{ think: 500 }, ...steps]))
    const readers = Array.from({ length: 40 }, () => readAll(open(`/runs/${run_id}/agent-events`)))
    const all = await Promise.all(readers)

    const listed = await events(run_id, { visibility: 'operator' })
    for (const frames of all) expect(eventsOf(frames)).toEqual(listed)
  })

  test('a reader that leaves is forgotten, and the next one is served', async () => {
    const { run_id } = await createRun(scripted([{ think: 60_000 }]))
    for (let n = 0; n < 50; n += 1) {
      const stream = open(`/runs/${run_id}/agent-events`)
      await stream.next()
      stream.close()
    }
    await cancel(run_id)
    const frames = await readAll(open(`/runs/${run_id}/agent-events`))
    expect(eventsOf(frames).at(-1)?.payload).toMatchObject({ to: 'cancelled' })
    expect((await get('/healthz')).status).toBe(200)
  })

  test('streams need a token and an existing run', async () => {
    const anonymous = api({ url: service.url })
    expect((await anonymous.get('/agent-events')).status).toBe(401)
    const none = await open('/runs/none/agent-events')
      .next()
      .catch((error: unknown) => error)
    expect(none).toMatchObject({ status: 404 })
  })

  test('nothing failed inside', () => {
    expect(service.stderr()).not.toMatch(/"level":"error"/)
  })
})
