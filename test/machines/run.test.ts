import { describe, expect, test } from 'vitest'
import { runMachine, type RunMachine } from '../../machines/run.ts'
import type { RunEvent, WatchdogClock } from '../../machines/run-setup.ts'
import { describeMachine } from '../../src/diagrams/graph.ts'
import {
  decodeChart,
  encodeChart,
  newChart,
  type RunSnapshot,
  statusOf,
} from '../../src/runtime/run/codec.ts'
import { transitionOf } from '../../src/runtime/run/decide.ts'
import { isTerminal, STATUSES, type EncodedChart } from '../../src/store/rows.ts'
import { runMutants } from '../support/chart-mutants.ts'
import { endOf, eventsAt, reachableStates, RUN_INPUTS } from '../support/chart-paths.ts'

const graph = describeMachine(runMachine, 1)
const leaves = graph.states.filter(({ id }) => !graph.states.some(({ parent }) => parent === id))
const everyEvent = [...new Set(graph.transitions.map(({ event }) => event))].filter(Boolean)

const reached = RUN_INPUTS.flatMap((input) => reachableStates(input)).map((walk) => ({
  walk,
  state: endOf(walk),
  how: walk.steps.map(({ event }) => event.type).join(' → '),
}))

const step = (state: RunSnapshot, event: RunEvent): RunSnapshot | undefined =>
  transitionOf(runMachine, state, event)?.next
const cancel: RunEvent = { type: 'cancel.requested' }
const isOver = (state: RunSnapshot): boolean => isTerminal(statusOf(state))
const accepted = (state: RunSnapshot): string[] => [
  ...new Set(eventsAt(state).flatMap((event) => (step(state, event) ? [event.type] : []))),
]

/** The states among those reached for which a promise does not hold, with the way to each. */
const exceptions = (holds: (state: RunSnapshot) => boolean): string[] =>
  reached
    .filter(({ state }) => !holds(state))
    .map(({ state, how }) => `${how}: ${JSON.stringify([state.value, state.context])}`)

test('the leaves of the chart are the twelve statuses', () => {
  expect(leaves.map(({ name }) => name).toSorted()).toEqual([...STATUSES].toSorted())
})

test('every state is reached', () => {
  const statuses = new Set(reached.map(({ state }) => statusOf(state)))
  expect([...statuses].toSorted()).toEqual([...STATUSES].toSorted())
})

describe('every transition of the chart', () => {
  const mutants = runMutants()

  test('has its mutant, which lacks it', () => {
    const kept = graph.transitions.map(({ id }) => id)
    expect(mutants.map(({ id }) => id).toSorted()).toEqual(kept.toSorted())
    for (const { machine, id } of mutants)
      expect(describeMachine(machine, 1).transitions.length, id).toBe(kept.length - 1)
  })

  test.each(mutants.map(({ id, machine }) => [id, machine] as const))(
    '%s is needed on some path',
    (_id, machine) => {
      const outcome = (chart: RunMachine, state: RunSnapshot, event: RunEvent): string => {
        const here = chart.resolveState({ value: state.value, context: state.context })
        const decision = transitionOf(chart, here, event)
        return decision ? `${keyOf(decision.next)} ${decision.actions.join()}` : 'refused'
      }
      const starts = RUN_INPUTS.map((input) => [runMachine, machine].map((m) => newChart(m, input)))
      const differs =
        starts.some(([ours, theirs]) => ours && theirs && keyOf(ours) !== keyOf(theirs)) ||
        reached.some(({ state }) =>
          eventsAt(state).some(
            (event) => outcome(runMachine, state, event) !== outcome(machine, state, event),
          ),
        )
      expect(differs).toBe(true)
    },
  )
})

test('a run begins out of its lane, in line for it unless it is delayed', () => {
  for (const input of RUN_INPUTS) {
    const start = newChart(runMachine, input)
    expect(start.status).toBe('active')
    expect(start.error).toBeUndefined()
    expect(statusOf(start)).toBe(input.delayed ? 'queued' : 'waiting_on_lane')
    expect(start.context).toMatchObject({ ...input, attempt: 0, holds_lane: false })
  }
})

test('every non-terminal state comes to an end in a few steps, without being cancelled', () => {
  const endsWithin = (state: RunSnapshot, steps: number): boolean => {
    if (isOver(state)) return true
    if (steps === 0) return false
    return eventsAt(state)
      .filter(({ type }) => type !== 'cancel.requested')
      .some((event) => {
        const next = step(state, event)
        return next !== undefined && keyOf(next) !== keyOf(state) && endsWithin(next, steps - 1)
      })
  }
  // run.due, lane.granted, run.claimed, session.ready, run.completed is the longest way there is.
  expect(exceptions((state) => endsWithin(state, 5))).toEqual([])
})

const keyOf = ({ value, context }: RunSnapshot): string => JSON.stringify([value, context])

test('terminal states accept nothing but a resume, and that only after failing or timing out', () => {
  const open = reached.filter(({ state }) => isOver(state))
  expect(open.length).toBeGreaterThan(4)
  for (const { state } of open) {
    const status = statusOf(state)
    const resumes = status === 'failed' || status === 'timed_out'
    const everything = everyEvent.map(
      (type) => ({ type, questions: 1, recovery: 'auto', max_crashes: 1 }) as unknown as RunEvent,
    )
    const taken = everything.filter((event) => step(state, event)).map(({ type }) => type)
    expect(taken, status).toEqual(resumes ? ['resume.requested'] : [])
  }
})

describe('every state that is not terminal', () => {
  const open = leaves.filter(({ tags }) => !tags.includes('terminal'))

  test.each(open.map(({ name, wakers }) => [name, wakers] as const))(
    '%s names wakers, and each is accepted there',
    (name, wakers) => {
      expect(wakers.length).toBeGreaterThan(0)
      const there = reached.filter(({ state }) => statusOf(state) === name)
      for (const waker of wakers) {
        expect(
          there.some(({ state }) => accepted(state).includes(waker)),
          waker,
        ).toBe(true)
      }
    },
  )

  test('is never left without a waker that it accepts in its present context', () => {
    expect(
      exceptions((state) => {
        const wakers = leaves.find(({ name }) => name === statusOf(state))?.wakers ?? []
        return isOver(state) || accepted(state).some((type) => wakers.includes(type))
      }),
    ).toEqual([])
  })

  test('accepts a cancel: at once where nothing runs, at the next boundary in active', () => {
    expect(
      exceptions((state) => {
        const next = step(state, cancel)
        if (isOver(state)) return next === undefined
        const expected = state.hasTag('active') ? 'cancel_requested' : 'cancelled'
        return next !== undefined && statusOf(next) === expected
      }),
    ).toEqual([])
  })

  test('in active ends by a loss of its attempt, by a crash loop, or goes on under the next attempt', () => {
    for (const recovery of ['auto', 'manual'] as const) {
      expect(
        exceptions((state) => {
          if (!state.hasTag('active')) return true
          const { attempt, progressed, barren_attempts, works_beside } = state.context
          const event = { type: 'attempt.lost', reason: 'x', recovery, max_crashes: 2 } as const
          const next = step(state, event)
          if (!next) return false
          if (statusOf(state) === 'cancel_requested')
            return (
              statusOf(next) === (state.context.children > 0 ? 'cancel_requested' : 'cancelled')
            )
          const isBarren = !progressed && barren_attempts + 1 >= 2
          const onlyWaits = statusOf(state) === 'waiting_on_child' && !works_beside
          const isInnocent = onlyWaits && recovery === 'auto'
          if (isBarren && !isInnocent) return statusOf(next) === 'waiting_on_human'
          if (recovery === 'manual') return statusOf(next) === 'timed_out'
          return statusOf(next) === 'resuming' && next.context.attempt === attempt + 1
        }),
        recovery,
      ).toEqual([])
    }
  })
})

test('the lane is held in every active state and in no terminal one', () => {
  expect(exceptions((state) => !state.hasTag('active') || state.context.holds_lane)).toEqual([])
  expect(exceptions((state) => !isOver(state) || !state.context.holds_lane)).toEqual([])
})

test('the lane is held while parked exactly where the run asked for it, and never in its line', () => {
  expect(
    exceptions(({ value, context }) => {
      if (value === 'waiting_on_human') return context.holds_lane === context.hold_lane_on_human
      if (value === 'waiting_on_lane') return !context.holds_lane
      return value !== 'queued' || context.holds_lane !== context.delayed
    }),
  ).toEqual([])
})

test('only a hand-over keeps the attempt, and counters never go below zero', () => {
  expect(exceptions(({ context }) => Math.min(...counts(context)) >= 0)).toEqual([])
  expect(
    exceptions((state) => {
      const next = step(state, { type: 'run.claimed' })
      if (!next) return true
      const { attempt, handed_over } = state.context
      return next.context.attempt === attempt + (handed_over ? 0 : 1) && !next.context.handed_over
    }),
  ).toEqual([])
})

const counts = ({ tools, children, questions, attempt }: RunSnapshot['context']): number[] => [
  tools,
  children,
  questions,
  attempt,
]

test('encoding and decoding any reachable state is the identity', () => {
  expect(
    exceptions((state) => {
      const stored = JSON.parse(JSON.stringify(encodeChart(state))) as EncodedChart
      const decoded = decodeChart(runMachine, stored)
      const same =
        keyOf(decoded) === keyOf(state) &&
        decoded.status === state.status &&
        [...decoded.tags].toSorted().join() === [...state.tags].toSorted().join()
      return same && accepted(decoded).join() === accepted(state).join()
    }),
  ).toEqual([])
})

describe('a stuck run', () => {
  const stuck = (clock: WatchdogClock, tool_call_id: string | null = null): RunEvent => ({
    type: 'stuck.noted',
    stuck_reason: `${clock}.found`,
    clock,
    tool_call_id,
  })
  const finished = (tool_call_id: string): RunEvent => ({
    type: 'tool.finished',
    call: { tool_call_id },
  })
  const after = (...events: RunEvent[]): RunSnapshot =>
    events.reduce<RunSnapshot>(
      (state, event) => {
        const next = step(state, event)
        if (!next) throw new Error(`${event.type} is not accepted in ${statusOf(state)}`)
        return next
      },
      newChart(runMachine, { delayed: false, hold_lane_on_human: false }),
    )
  const lost: RunEvent = {
    type: 'attempt.lost',
    reason: 'x',
    recovery: 'auto',
    max_crashes: 3,
  }
  const begun: RunEvent[] = [{ type: 'lane.granted' }, { type: 'run.claimed' }]
  const progress: RunEvent[] = [{ type: 'progress.reported' }, { type: 'call.recorded' }]

  test.each(['reasoning', 'executor'] as const)('recovers from %s by progress', (clock) => {
    for (const event of progress) {
      const { context } = after(...begun, stuck(clock), event)
      expect(context).toMatchObject({ stuck_clock: null, stuck_reason: null })
    }
    const tool: RunEvent = { type: 'tool.started' }
    const child: RunEvent = { type: 'child.started' }
    const resumed: RunEvent[] = [child, lost, { type: 'session.ready' }]
    for (const events of [
      [tool, stuck(clock), finished('any')],
      [stuck(clock), tool],
      [tool, stuck(clock), tool],
      [stuck(clock), child],
      [...resumed, stuck(clock), { type: 'child.awaited' } as const],
    ])
      expect(after(...begun, ...events).context.stuck_clock).toBeNull()
  })

  test('recovers from a call that hangs by that call alone', () => {
    const calls: RunEvent[] = [{ type: 'tool.started' }, { type: 'tool.started' }]
    const hangs: RunEvent[] = [...begun, ...calls, stuck('tool', 'a')]
    const others: RunEvent[] = [
      finished('b'),
      { type: 'progress.reported', tool_call_id: 'b' },
      ...progress,
    ]
    for (const event of others)
      expect(after(...hangs, event).context).toMatchObject({ stuck_clock: 'tool', stuck_call: 'a' })
    for (const event of [finished('a'), { type: 'progress.reported', tool_call_id: 'a' } as const])
      expect(after(...hangs, event).context).toMatchObject({
        stuck_reason: null,
        stuck_clock: null,
        stuck_call: null,
      })
  })

  test('recovers from nothing by progress when its turn took too long', () => {
    for (const event of progress)
      expect(after(...begun, stuck('turn'), event).context.stuck_clock).toBe('turn')
    const more = after(...begun, stuck('turn'), { type: 'turn.extended' })
    expect(more.context.stuck_clock).toBeNull()
    const other = after(...begun, stuck('tool'), { type: 'turn.extended' })
    expect(other.context.stuck_clock).toBe('tool')
  })

  test('is flagged by what was found first, and by nothing over that', () => {
    const clocks = ['reasoning', 'tool', 'turn', 'executor'] as const
    for (const first of clocks)
      for (const second of clocks)
        expect(step(after(...begun, stuck(first)), stuck(second))).toBeUndefined()
  })

  test('is not stuck any more when its attempt is over', () => {
    const calm = ({ context }: RunSnapshot): boolean =>
      context.stuck_clock === null && context.stuck_call === null
    expect(exceptions((state) => state.hasTag('active') || calm(state))).toEqual([])
    expect(after(...begun, stuck('executor'), lost).context.stuck_clock).toBeNull()
  })
})
