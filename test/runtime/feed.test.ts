import { expect, test } from 'vitest'
import { Feed } from '../../src/runtime/feed.ts'
import type { RunEventRow } from '../../src/store/rows.ts'

const eventOf = (id: number): RunEventRow => ({
  id,
  event_type: 'step_finished',
  run_id: 'run_1',
  conversation_id: 'c1',
  created_by: 'token:admin',
  sequence: id,
  visibility: 'operator',
  payload: {},
  created_at: '2026-01-01T00:00:00.000Z',
})

/** A log whose ids have gaps, as after a crash of the database or a commit that was rolled back. */
function logOf(ids: number[]) {
  const events = ids.map(eventOf)
  const feed = new Feed({
    readEvents: async (_scope, afterId, limit) =>
      events.filter(({ id }) => id > afterId).slice(0, limit),
    logBounds: async () => ({ last: events.at(-1)?.id ?? 0, purged: 0 }),
    log: { info: () => {}, warn: () => {}, error: () => {} },
  })
  const append = (id: number): void => {
    events.push(eventOf(id))
    feed.advance(id)
  }
  return { feed, append }
}

/** The first `count` ids that a reader gets, or what it gets instead. */
async function read(feed: Feed, afterId: number, count: number): Promise<(number | 'reset')[]> {
  const seen: (number | 'reset')[] = []
  const done = new AbortController()
  for await (const page of feed.read({
    scope: { visibility: 'internal' },
    afterId,
    signal: done.signal,
  })) {
    seen.push(...(page === 'reset' ? ['reset' as const] : page.map(({ id }) => id)))
    if (page === 'reset' || seen.length >= count) done.abort()
  }
  return seen
}

test.each([
  ['from the first event', 0, [1, 2, 3]],
  ['from the last one', 3, []],
])('a reader %s goes on over a gap in the ids', async (_name, afterId, before) => {
  const { feed, append } = logOf([1, 2, 3])
  const reading = read(feed, afterId, before.length + 2)
  // It follows by the time that the reader counts.
  while (feed.readers === 0) await new Promise(setImmediate)
  await new Promise((resolve) => setTimeout(resolve, 20))
  append(35)
  append(70)
  expect(await reading).toEqual([...before, 35, 70])
  await feed.stop()
})

test('a reader whose cursor is ahead of the log is reset', async () => {
  const { feed } = logOf([1, 2, 3])
  expect(await read(feed, 99, 1)).toEqual(['reset'])
  await feed.stop()
})
