/**
 * The vocabulary of the run chart: its context, its events, the facts and effects that it names, its guards. The chart
 * itself is `run.ts`.
 */
import { assign, setup } from 'xstate'

export interface RunInput {
  /** The run has a `run_at`: it stays out of its lane until SQL says `run.due`. */
  delayed: boolean
  /** Keep the lane while parked in `waiting_on_human`. */
  hold_lane_on_human: boolean
}

export interface RunContext {
  /** 1-based number of the present or latest stay in `active`; 0 before the first. */
  attempt: number
  delayed: boolean
  holds_lane: boolean
  hold_lane_on_human: boolean
  /** Handed over between live nodes: the next claim keeps the attempt number. */
  handed_over: boolean
  /** The present attempt has recorded a checkpoint, so its loss is no step towards a crash loop. */
  progressed: boolean
  /** Attempts lost in a row without a new checkpoint. */
  barren_attempts: number
  /** Tool calls in flight. */
  tools: number
  /** Delegated child runs whose report is not recorded yet; an attempt that ends leaves them to the next one. */
  children: number
  /** Beside the children that it waits for the present attempt has done work of its own. */
  works_beside: boolean
  /** Open questions to a human; the run goes back in line with the last answer. */
  questions: number
  /** What the watchdog found, such as `executor.unresponsive(15s)`; null while all is well. */
  stuck_reason: string | null
  stuck_clock: WatchdogClock | null
  /** The tool call that it is about, by its id; null: no single call is. */
  stuck_call: string | null
  /** It should have a reader and has none. */
  orphan: boolean
}

/** The clocks of the watchdog; `executor` is the answer to its probe. */
export type WatchdogClock = 'reasoning' | 'tool' | 'turn' | 'executor'

/** What a lost attempt should lead to; the policy comes from `RUNLANE_RECOVERY` and `RUNLANE_MAX_CRASHES`. */
export interface LostAttempt {
  type: 'attempt.lost'
  reason: string
  recovery: 'auto' | 'manual'
  max_crashes: number
}

/** What a clock has found; `tool_call_id`: of this call, the others may go on as ever. */
export interface Found {
  type: 'stuck.noted'
  stuck_reason: string
  clock: WatchdogClock
  tool_call_id: string | null
}

/** Payloads beyond what the chart decides by travel on the events and are read by the record, not by the chart. */
export type RunEvent =
  | { type: 'run.due' }
  | { type: 'lane.granted' }
  | { type: 'queue.expired' }
  | { type: 'run.claimed' }
  | { type: 'input.replaced' }
  | { type: 'session.ready' }
  | { type: 'call.recorded' }
  | { type: 'progress.reported'; tool_call_id?: string; works_beside?: true }
  | { type: 'tool.started' }
  | { type: 'tool.finished'; call: { tool_call_id: string } }
  | { type: 'child.started' }
  | { type: 'child.awaited' }
  | { type: 'child.reported' }
  | { type: 'children.dismissed' }
  | { type: 'human.asked'; questions: number }
  | { type: 'human.answered' }
  | { type: 'run.completed' }
  | { type: 'run.failed' }
  | { type: 'cancel.requested' }
  | { type: 'session.exited' }
  | { type: 'cancel.expired' }
  /** `children`: those that the next attempt waits on for; absent: as many as before. */
  | { type: 'resume.requested'; children?: number }
  | { type: 'attempt.handed_over' }
  | Found
  | { type: 'stuck.cleared' }
  | { type: 'turn.extended' }
  | { type: 'verdict.noted' }
  | { type: 'readers.gone' }
  | { type: 'readers.back' }
  | { type: 'run.recycled'; forced: boolean }
  | LostAttempt

/**
 * The chart's whole contract with the runtime. `facts` become part of the decision's record; `effects` are performed
 * after that record is committed, in this order of naming.
 */
export const RUN_FACTS = [
  'noteCall',
  'noteProgress',
  'noteCancel',
  'noteDismissal',
  'noteQuestions',
  'noteAnswer',
  'noteInput',
  'noteResumeRequest',
  'noteResumed',
  'noteLost',
  'noteOutcome',
  'noteStuck',
  'noteExtended',
  'noteVerdict',
  'noteReaders',
] as const
export const RUN_EFFECTS = ['startSession', 'cancelSession', 'endSession'] as const

export type RunFact = (typeof RUN_FACTS)[number]
export type RunEffect = (typeof RUN_EFFECTS)[number]

/** The pure transition helpers ask for it without input. */
export const newContext = (input: RunInput | undefined): RunContext => ({
  attempt: 0,
  delayed: input?.delayed ?? false,
  holds_lane: false,
  hold_lane_on_human: input?.hold_lane_on_human ?? false,
  handed_over: false,
  progressed: false,
  barren_attempts: 0,
  tools: 0,
  children: 0,
  works_beside: false,
  questions: 0,
  ...NOT_STUCK,
  orphan: false,
})

const NOT_STUCK = { stuck_reason: null, stuck_clock: null, stuck_call: null } as const

/** The call that moves by this event; null: the run does, and none of its calls in flight. */
function movedCall(event: RunEvent): string | null {
  if (event.type === 'tool.finished') return event.call.tool_call_id
  return event.type === 'progress.reported' ? (event.tool_call_id ?? null) : null
}

const named = Object.fromEntries(
  [...RUN_FACTS, ...RUN_EFFECTS].map((name) => [name, () => {}]),
) as Record<RunFact | RunEffect, () => void>

export const runSetup = setup({
  types: {} as {
    context: RunContext
    events: RunEvent
    input: RunInput
    tags: 'active' | 'parked' | 'terminal'
  },
  actions: {
    ...named,
    becomeDue: assign({ delayed: false }),
    takeLane: assign({ holds_lane: true }),
    leaveLane: assign({ holds_lane: false }),
    leaveLaneUnlessHeld: assign({ holds_lane: ({ context }) => context.hold_lane_on_human }),
    openAttempt: assign({
      attempt: ({ context }) => (context.handed_over ? context.attempt : context.attempt + 1),
      progressed: ({ context }) => context.handed_over && context.progressed,
      handed_over: false,
      works_beside: false,
      tools: 0,
    }),
    openNextAttempt: assign({
      attempt: ({ context }) => context.attempt + 1,
      progressed: false,
      works_beside: false,
      tools: 0,
      ...NOT_STUCK,
      orphan: false,
    }),
    countLoss: assign({
      barren_attempts: ({ context }) => (context.progressed ? 0 : context.barren_attempts + 1),
    }),
    forgetLosses: assign({ barren_attempts: 0 }),
    handOver: assign({ handed_over: true, tools: 0 }),
    progress: assign({ progressed: true, barren_attempts: 0 }),
    // Stuck wins over orphan: one mark says enough.
    flag: assign((_, params: Omit<Found, 'type'>) => ({
      stuck_reason: params.stuck_reason,
      stuck_clock: params.clock,
      stuck_call: params.tool_call_id,
      orphan: false,
    })),
    unflag: assign({ ...NOT_STUCK, orphan: false }),
    loseReaders: assign({ orphan: true }),
    findReaders: assign({ orphan: false }),
    unflagTurn: assign(({ context }) => (context.stuck_clock === 'turn' ? NOT_STUCK : {})),
    // A turn that took too long stays so until it ends, however lively it is; a call that hangs, however lively others are.
    recover: assign(({ context: { stuck_clock, stuck_call }, event }) =>
      stuck_clock !== 'turn' && (stuck_call === null || stuck_call === movedCall(event))
        ? NOT_STUCK
        : {},
    ),
    enterTool: assign({ tools: ({ context }) => context.tools + 1 }),
    leaveTool: assign({ tools: ({ context }) => context.tools - 1 }),
    enterChild: assign({ children: ({ context }) => context.children + 1 }),
    workBeside: assign(({ context }, params: { works_beside?: true }) => ({
      works_beside: context.works_beside || params.works_beside === true,
    })),
    leaveChild: assign({ children: ({ context }) => context.children - 1 }),
    recountChildren: assign(({ context, event }) => {
      const known = event.type === 'resume.requested' ? event.children : undefined
      return { children: known ?? context.children }
    }),
    ask: assign({ questions: (_, params: { questions: number }) => params.questions }),
    answer: assign({ questions: ({ context }) => context.questions - 1 }),
    endCalls: assign({ tools: 0, questions: 0 }),
  },
  guards: {
    isDue: ({ context }) => !context.delayed,
    belongsInLine: ({ context }) => !context.delayed && !context.holds_lane,
    isFirstAttempt: ({ context }) => context.holds_lane && context.attempt === 0,
    holdsLane: ({ context }) => context.holds_lane,
    hasTool: ({ context }) => context.tools > 0,
    hasChild: ({ context }) => context.children > 0,
    hasNoChild: ({ context }) => context.children === 0,
    isLastCall: ({ context }) => context.tools <= 1 && context.children === 0,
    isLastTool: ({ context }) => context.tools <= 1,
    isLastChild: ({ context }) => context.children <= 1,
    isRecyclable: ({ context }, params: { forced: boolean }) =>
      params.forced || context.stuck_clock !== null,
    isStuck: ({ context }) => context.stuck_clock !== null,
    // What was found first stays for as long as it is true: it says why.
    isNotStuck: ({ context }) => context.stuck_clock === null,
    isWell: ({ context }) => context.stuck_clock === null && !context.orphan,
    isOrphan: ({ context }) => context.orphan,
    isLastAnswer: ({ context }) => context.questions <= 1,
    isCrashLoop: ({ context }, params: { max_crashes: number }) =>
      !context.progressed && context.barren_attempts + 1 >= params.max_crashes,
    // Waiting kills no node: whoever took this one with it, it was not this run.
    isInnocent: ({ context }, params: { recovery: 'auto' | 'manual' }) =>
      !context.works_beside && params.recovery === 'auto',
    isAutomatic: (_, params: { recovery: 'auto' | 'manual' }) => params.recovery === 'auto',
  },
})
