/**
 * What supervises the runs of one node: it looks at those that it hosts, asks who reads them, and reconciles what the
 * database says with what is. It is the root of the node's actor system; the node and its runs are actors in it.
 *
 * Pure: one scheduler sends `clock.ticked`, `src/runtime/supervision/supervisor.ts` performs what the chart names and tells what came
 * of it. Nothing looks or reconciles but by a transition of this chart. Diagram: `machines/README.md`.
 */
import { assign, setup } from 'xstate'

export const SUPERVISOR_MACHINE_VERSION = 1

/** All in milliseconds. */
export interface SupervisorInput {
  /** How often the scheduler ticks: at least as often as the most frequent of the three below. */
  tick_ms: number
  look_every_ms: number
  ask_every_ms: number
  reconcile_every_ms: number
  /** Another node reconciles: so long until this one tries again. */
  retry_every_ms: number
  /** A tick that comes so much later than it should says that this process stood still, frozen or blocked. */
  late_ms: number
}

/** Times are monotonic milliseconds of this process. */
export interface SupervisorContext extends SupervisorInput {
  ticked_at: number
  /** Since when the ticks have come in time: others may be judged by what they did since. */
  steady_since: number
  looked_at: number
  asked_at: number
  /** Null: not since the start, so the first tick is its time. */
  passed_at: number | null
}

export type SupervisorEvent =
  | { type: 'supervisor.started'; at: number }
  | { type: 'clock.ticked'; at: number }
  /** `held`: how many runs were spared because too many of their class would have been ended at once. */
  | { type: 'look.finished'; held: number }
  | { type: 'look.failed' }
  | { type: 'readers.told' }
  | { type: 'pass.finished'; held: number }
  | { type: 'pass.refused' }
  | { type: 'pass.failed' }
  | { type: 'supervisor.stopped' }

/** What the chart asks the runtime to do. */
export const SUPERVISOR_EFFECTS = [
  'forgive',
  'look',
  'askReaders',
  'reconcile',
  'raiseSystemic',
  'clearSystemic',
] as const
export type SupervisorEffect = (typeof SUPERVISOR_EFFECTS)[number]

const named = Object.fromEntries(SUPERVISOR_EFFECTS.map((name) => [name, () => {}])) as Record<
  SupervisorEffect,
  () => void
>

type Timed = { context: SupervisorContext; event: SupervisorEvent }

const at = ({ context, event }: Timed): number => ('at' in event ? event.at : context.ticked_at)
const isLate = (timed: Timed): boolean =>
  at(timed) - timed.context.ticked_at > 2 * timed.context.tick_ms + timed.context.late_ms
/** Ticks are never quite in time: what is due within half of one is due now. */
const isDue = (timed: Timed, since: number, every: number): boolean =>
  !isLate(timed) && at(timed) - since >= every - timed.context.tick_ms / 2

const supervisorSetup = setup({
  types: {} as {
    context: SupervisorContext
    events: SupervisorEvent
    input: SupervisorInput
    tags: 'systemic'
  },
  actions: {
    ...named,
    begin: assign((timed) => ({
      ticked_at: at(timed),
      steady_since: at(timed),
      looked_at: at(timed),
      asked_at: at(timed),
    })),
    noteTick: assign({ ticked_at: at }),
    noteStandstill: assign({ ticked_at: at, steady_since: at, looked_at: at }),
    noteLook: assign({ looked_at: at }),
    noteAsking: assign({ asked_at: at }),
    notePass: assign({ passed_at: at }),
  },
  guards: {
    stoodStill: isLate,
    isLookDue: (timed) => isDue(timed, timed.context.looked_at, timed.context.look_every_ms),
    isAskingDue: (timed) => isDue(timed, timed.context.asked_at, timed.context.ask_every_ms),
    isPassDue: (timed) =>
      isDue(timed, timed.context.passed_at ?? -Infinity, timed.context.reconcile_every_ms),
    isRetryDue: (timed) =>
      isDue(timed, timed.context.passed_at ?? -Infinity, timed.context.retry_every_ms),
    isHeld: ({ event }) => 'held' in event && event.held > 0,
  },
})

export const supervisorMachine = supervisorSetup.createMachine({
  id: 'supervisor',
  context: ({ input }) => ({
    ...input,
    ticked_at: 0,
    steady_since: 0,
    looked_at: 0,
    asked_at: 0,
    passed_at: null,
  }),
  initial: 'idle',
  options: { maxIterations: 100 },
  states: {
    idle: {
      description: 'The node has not registered yet.',
      meta: { wakers: ['supervisor.started'] },
      on: {
        'supervisor.started': { target: 'supervising', actions: 'begin' },
        'supervisor.stopped': 'stopped',
      },
    },
    supervising: {
      type: 'parallel',
      on: { 'supervisor.stopped': 'stopped' },
      states: {
        clock: {
          initial: 'steady',
          states: {
            steady: {
              description: 'Ticks come in time.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': [
                  {
                    guard: 'stoodStill',
                    target: 'standing_still',
                    actions: ['forgive', 'noteStandstill'],
                  },
                  { actions: 'noteTick' },
                ],
              },
            },
            standing_still: {
              description:
                'This process was frozen or blocked: its runs are forgiven that time, and for one tick nobody is judged.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': [
                  { guard: 'stoodStill', actions: ['forgive', 'noteStandstill'] },
                  { target: 'steady', actions: 'noteTick' },
                ],
              },
            },
          },
        },
        watchdog: {
          initial: 'watching',
          states: {
            watching: {
              description: 'Waits for the next look.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': {
                  guard: 'isLookDue',
                  target: 'looking',
                  actions: ['noteLook', 'look'],
                },
              },
            },
            looking: {
              description: 'Holds each hosted run against its clocks, flags, and ends where asked.',
              meta: { wakers: ['look.finished', 'look.failed'] },
              on: {
                'look.finished': [
                  { guard: 'isHeld', target: 'holding_fire', actions: 'raiseSystemic' },
                  { target: 'watching', actions: 'clearSystemic' },
                ],
                'look.failed': 'watching',
              },
            },
            holding_fire: {
              tags: 'systemic',
              description:
                'Too many runs of a class are stuck at once for each to be to blame: none is ended.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': {
                  guard: 'isLookDue',
                  target: 'looking',
                  actions: ['noteLook', 'look'],
                },
              },
            },
          },
        },
        audience: {
          initial: 'listening',
          states: {
            listening: {
              description: 'Readers of streams are noted as they come and go.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': {
                  guard: 'isAskingDue',
                  target: 'asking',
                  actions: ['noteAsking', 'askReaders'],
                },
              },
            },
            asking: {
              description: 'Tells the database who reads here, and asks who reads elsewhere.',
              meta: { wakers: ['readers.told'] },
              on: { 'readers.told': 'listening' },
            },
          },
        },
        reconciler: {
          initial: 'resting',
          states: {
            resting: {
              description: 'Waits for the next pass; the first one is due at once.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': {
                  guard: 'isPassDue',
                  target: 'reconciling',
                  actions: ['notePass', 'reconcile'],
                },
              },
            },
            reconciling: {
              description: 'Goes through its rules, one after the other.',
              meta: { wakers: ['pass.finished', 'pass.refused', 'pass.failed'] },
              on: {
                'pass.finished': [
                  { guard: 'isHeld', target: 'holding_fire', actions: 'raiseSystemic' },
                  { target: 'resting', actions: 'clearSystemic' },
                ],
                'pass.refused': 'waiting_turn',
                'pass.failed': 'waiting_turn',
              },
            },
            waiting_turn: {
              description: 'Another node reconciles, or the database did not answer.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': {
                  guard: 'isRetryDue',
                  target: 'reconciling',
                  actions: ['notePass', 'reconcile'],
                },
              },
            },
            holding_fire: {
              tags: 'systemic',
              description: 'Too many runs of a class would be ended at once: none was.',
              meta: { wakers: ['clock.ticked'] },
              on: {
                'clock.ticked': {
                  guard: 'isPassDue',
                  target: 'reconciling',
                  actions: ['notePass', 'reconcile'],
                },
              },
            },
          },
        },
      },
    },
    stopped: { description: 'The node drains: nothing is judged any more.' },
  },
})
