import { getAdjacencyMap, getShortestPaths } from 'xstate/graph'
import { runMachine, type RunMachine } from '../../machines/run.ts'
import type { RunEvent, RunInput, WatchdogClock } from '../../machines/run-setup.ts'
import type { RunSnapshot } from '../../src/runtime/run/codec.ts'

/** One event and the state that it leads to. */
export interface ChartStep {
  readonly event: RunEvent
  readonly next: RunSnapshot
}

/** A way through the chart of a run, from its creation. */
export interface ChartWalk {
  readonly input: RunInput
  readonly start: RunSnapshot
  readonly steps: readonly ChartStep[]
}

/** Every kind of run there is, as far as its chart is concerned. */
export const RUN_INPUTS: readonly RunInput[] = [
  { delayed: false, hold_lane_on_human: false },
  { delayed: true, hold_lane_on_human: false },
  { delayed: false, hold_lane_on_human: true },
  { delayed: true, hold_lane_on_human: true },
]

const MAX_CRASHES = 2

const lost = (recovery: 'auto' | 'manual'): RunEvent => ({
  type: 'attempt.lost',
  reason: 'node_lost',
  recovery,
  max_crashes: MAX_CRASHES,
})

const found = (clock: WatchdogClock, stuck_reason: string): RunEvent => ({
  type: 'stuck.noted',
  stuck_reason,
  clock,
  tool_call_id: null,
})

const ALWAYS: readonly RunEvent[] = [
  { type: 'lane.granted' },
  { type: 'queue.expired' },
  { type: 'run.claimed' },
  { type: 'input.replaced' },
  { type: 'session.ready' },
  { type: 'call.recorded' },
  { type: 'progress.reported' },
  { type: 'tool.started' },
  { type: 'child.started' },
  { type: 'human.asked', questions: 1 },
  { type: 'human.asked', questions: 2 },
  { type: 'human.answered' },
  { type: 'run.completed' },
  { type: 'run.failed' },
  { type: 'cancel.requested' },
  { type: 'session.exited' },
  { type: 'cancel.expired' },
  { type: 'resume.requested' },
  { type: 'attempt.handed_over' },
  lost('auto'),
  lost('manual'),
  found('executor', 'executor.unresponsive(15s)'),
  found('turn', 'turn.timeout(600s)'),
  { type: 'stuck.cleared' },
  { type: 'turn.extended' },
  { type: 'verdict.noted' },
  { type: 'readers.gone' },
  { type: 'readers.back' },
  { type: 'run.recycled', forced: false },
  { type: 'run.recycled', forced: true },
]

const CHILDREN: readonly RunEvent[] = [
  { type: 'child.awaited' },
  { type: 'child.reported' },
  { type: 'children.dismissed' },
  { type: 'progress.reported', works_beside: true },
]

/** What can happen to a run here: the surroundings end no call that was not started, and no run is due twice. */
export function eventsAt({ context }: RunSnapshot): RunEvent[] {
  return [
    ...ALWAYS,
    ...(context.delayed ? [{ type: 'run.due' } as const] : []),
    ...(context.tools > 0
      ? [{ type: 'tool.finished', call: { tool_call_id: 'tool_1' } } as const]
      : []),
    ...(context.children > 0 ? CHILDREN : []),
  ]
}

/** Counters are what makes the chart endless; beyond these a run only repeats itself. */
const isFar = ({ context }: RunSnapshot): boolean =>
  context.attempt > 2 ||
  context.tools + context.children > 2 ||
  // A later attempt does what the first one did; one call of either kind is enough to see what it finds and leaves.
  (context.attempt > 1 && context.tools + context.children > 1) ||
  // Whatever a run does while it is stuck or unread, it does without: its first attempt shows all there is to see.
  ((context.stuck_clock !== null || context.orphan) &&
    (context.attempt > 1 || context.tools + context.children > 1)) ||
  // Work beside a child counts when the attempt is lost that waits for it, and for nothing else.
  (context.works_beside &&
    (context.stuck_clock !== null ||
      context.orphan ||
      context.attempt > 1 ||
      context.tools > 0 ||
      context.children !== 1))

// The declarations of xstate/graph do not pass our compiler options.
const options = (input: RunInput): never =>
  ({
    input,
    events: eventsAt,
    limit: 100_000,
    stopWhen: isFar,
    serializeState: keyOf,
    serializeEvent: (event: RunEvent) => JSON.stringify(event),
  }) as never

const keyOf = ({ value, context }: RunSnapshot): string => JSON.stringify([value, context])

/** Each reachable state, once for each context within bounds, with a shortest way to it. */
export function reachableStates(input: RunInput, machine: RunMachine = runMachine): ChartWalk[] {
  const plans = getShortestPaths(machine, options(input)) as unknown as {
    steps: { event: RunEvent; state: RunSnapshot }[]
    state: RunSnapshot
  }[]
  return plans.map(({ steps }) => {
    const [first, ...rest] = steps
    if (!first) throw new Error('a path without its start')
    return {
      input,
      start: first.state,
      steps: rest.map(({ event, state }) => ({ event, next: state })),
    }
  })
}

export const endOf = ({ start, steps }: ChartWalk): RunSnapshot => steps.at(-1)?.next ?? start

/** For each accepted event in each reachable state: a shortest way there, and then the event. */
export function walksOverEveryEdge(
  input: RunInput,
  accepts: (from: RunSnapshot, event: RunEvent) => boolean,
): ChartWalk[] {
  const map = getAdjacencyMap(runMachine, options(input)) as unknown as Record<
    string,
    { transitions: Record<string, { event: RunEvent; state: RunSnapshot }> }
  >
  return reachableStates(input).flatMap((walk) => {
    const from = endOf(walk)
    const edges = Object.values(map[keyOf(from)]?.transitions ?? {})
    return edges
      .filter(({ event }) => accepts(from, event))
      .map(({ event, state }) => ({ ...walk, steps: [...walk.steps, { event, next: state }] }))
  })
}
