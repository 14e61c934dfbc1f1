import { describe, expect, test } from 'vitest'
import { initialTransition, type SnapshotFrom, transition } from 'xstate'
import { getShortestPaths } from 'xstate/graph'
import {
  SUPERVISOR_EFFECTS,
  type SupervisorEvent,
  type SupervisorInput,
  supervisorMachine,
} from '../../machines/supervisor.ts'
import { describeMachine } from '../../src/diagrams/graph.ts'

type State = SnapshotFrom<typeof supervisorMachine>

const input: SupervisorInput = {
  tick_ms: 1_000,
  look_every_ms: 1_000,
  ask_every_ms: 2_000,
  reconcile_every_ms: 3_000,
  retry_every_ms: 2_000,
  late_ms: 1_000,
}
const SUPERVISOR = describeMachine(supervisorMachine, 1)
const leaves = SUPERVISOR.states.filter(
  ({ id }) => !SUPERVISOR.states.some(({ parent }) => parent === id),
)

/** What can happen next: the clock goes on in time or late, and what is under way comes to its end. */
const eventsAt = ({ context }: State): SupervisorEvent[] => [
  { type: 'supervisor.started', at: 0 },
  { type: 'clock.ticked', at: context.ticked_at + 1_000 },
  { type: 'clock.ticked', at: context.ticked_at + 60_000 },
  { type: 'look.finished', held: 0 },
  { type: 'look.finished', held: 1 },
  { type: 'look.failed' },
  { type: 'readers.told' },
  { type: 'pass.finished', held: 0 },
  { type: 'pass.finished', held: 1 },
  { type: 'pass.refused' },
  { type: 'pass.failed' },
  { type: 'supervisor.stopped' },
]
/** Times differ without end; what counts is how long ago things were. */
const keyOf = ({ value, context }: State): string => {
  const ago = (at: number | null) => (at === null ? null : Math.min(context.ticked_at - at, 4_000))
  const { looked_at, asked_at, passed_at, steady_since } = context
  return JSON.stringify([value, [looked_at, asked_at, passed_at, steady_since].map(ago)])
}
// The declarations of xstate/graph do not pass our compiler options.
const options = {
  input,
  events: eventsAt,
  serializeState: keyOf,
  serializeEvent: (event: SupervisorEvent) => JSON.stringify(event),
  limit: 100_000,
} as never
const reached = (getShortestPaths(supervisorMachine, options) as unknown as { state: State }[]).map(
  ({ state }) => state,
)

const isIn = (state: State, id: string): boolean => {
  let value: unknown = state.value
  for (const part of id.split('.')) {
    if (value === part) return true
    if (typeof value !== 'object' || value === null || !(part in value)) return false
    value = (value as Record<string, unknown>)[part]
  }
  return true
}
const after = (state: State, event: SupervisorEvent) => {
  const [next, actions] = transition(supervisorMachine, state, event)
  const effects = actions.map(({ type }) => type)
  return { next, effects: effects.filter((type) => SUPERVISOR_EFFECTS.includes(type as never)) }
}

test('every state of the supervisor is reached', () => {
  const seen = leaves.filter(({ id }) => reached.some((state) => isIn(state, id)))
  expect(seen.map(({ id }) => id)).toEqual(leaves.map(({ id }) => id))
})

test('every state but the last names wakers, and each leads on from somewhere', () => {
  for (const { id, wakers } of leaves.filter((leaf) => leaf.id !== 'stopped')) {
    expect(wakers.length, id).toBeGreaterThan(0)
    const there = reached.filter((state) => isIn(state, id))
    for (const type of wakers) {
      const events = there.flatMap((state) =>
        eventsAt(state).flatMap((event) => (event.type === type ? [{ state, event }] : [])),
      )
      const leads = events.some(({ state, event }) => !isIn(after(state, event).next, id))
      expect(leads, `${id}: ${type}`).toBe(true)
    }
  }
})

describe('wherever it is', () => {
  test('a late tick forgives, and judges nobody', () => {
    for (const state of reached.filter((one) => isIn(one, 'supervising'))) {
      const late = { type: 'clock.ticked', at: state.context.ticked_at + 60_000 } as const
      const { next, effects } = after(state, late)
      expect(effects).toEqual(['forgive'])
      expect(isIn(next, 'supervising.clock.standing_still')).toBe(true)
      expect(next.context.steady_since).toBe(late.at)
    }
  })

  test('a look or a pass under way is not begun again', () => {
    for (const state of reached) {
      const tick = { type: 'clock.ticked', at: state.context.ticked_at + 1_000 } as const
      const { effects } = after(state, tick)
      if (isIn(state, 'supervising.watchdog.looking')) expect(effects).not.toContain('look')
      if (isIn(state, 'supervising.reconciler.reconciling'))
        expect(effects).not.toContain('reconcile')
      if (isIn(state, 'supervising.audience.asking')) expect(effects).not.toContain('askReaders')
    }
  })

  test('it can be stopped, and then does nothing any more', () => {
    for (const state of reached) {
      const { next } = after(state, { type: 'supervisor.stopped' })
      expect(next.value).toBe('stopped')
      for (const event of eventsAt(next)) expect(after(next, event).effects).toEqual([])
    }
  })

  test('it is systemic while it holds fire, and only then', () => {
    for (const state of reached) {
      const holds = ['watchdog', 'reconciler'].some((region) =>
        isIn(state, `supervising.${region}.holding_fire`),
      )
      expect(state.hasTag('systemic')).toBe(holds)
    }
  })
})

test('it looks with each tick, asks who reads, and reconciles at once and then every so often', () => {
  let [state] = initialTransition(supervisorMachine, input)
  state = after(state, { type: 'supervisor.started', at: 500 }).next
  const told: string[] = []
  for (let at = 1_500; at < 9_000; at += 1_000) {
    const { next, effects } = after(state, { type: 'clock.ticked', at })
    told.push(effects.join())
    state = after(next, { type: 'look.finished', held: 0 }).next
    state = after(state, { type: 'pass.finished', held: 0 }).next
    state = after(state, { type: 'readers.told' }).next
  }
  expect(told).toEqual([
    'look,reconcile',
    'look,askReaders',
    'look',
    'look,askReaders,reconcile',
    'look',
    'look,askReaders',
    'look,reconcile',
    'look,askReaders',
  ])
})
