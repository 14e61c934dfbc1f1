import type { Json } from '../json.ts'
import type { CallDraft } from '../store/flush.ts'
import type { CallRow, ChildReport, Signal } from '../store/rows.ts'
import type { Timeouts } from './agent.ts'

export type { ChildReport, Signal } from '../store/rows.ts'

/** What an executor needs to run one attempt; plain JSON, so that it can cross a thread or a wire. */
export interface Job {
  run_id: string
  conversation_id: string
  agent: string
  attempt: number
  input: Json
  /** The lanes that it and the runs above it hold, its own first. */
  lanes: string[]
  /** The envelope so far, in the order of the agent's calls. */
  calls: CallRow[]
}

/** Longest text that the saying line of a run keeps; the whole text is in its `message` event. */
export const SAYING_LENGTH_MAX = 200

/** A call of the agent as its session reports it. */
export type SessionCall = Omit<
  CallDraft,
  'run_id' | 'attempt' | 'begun_after' | 'settled_after'
> & {
  /** Characters of the result's JSON text. */
  size: number
}

/** Something moved: no new checkpoint, but worth a record. */
export interface ProgressReport {
  type: 'progress.reported'
  phase?: string
  saying?: string
  /** Of this tool call. */
  tool_call_id?: string
  /** Work of its own is about to begin, or goes on, while delegated runs are waited for. */
  works_beside?: true
  /** A say or model call that is under way, as far as it is. */
  call?: SessionCall
  /** Its text goes on: at `offset` of the message, in UTF-16 code units. What was there behind it is void. */
  delta?: { text: string; offset: number }
  /** The model call was begun with this model, as `provider:model`. */
  model?: string
  /** The model call has failed with this kind of failure. */
  failure?: { kind: string; message: string }
}

/** A run that another one asks for. */
export interface Delegation {
  child_run_id: string
  agent: string
  input: Json
  /** Null: a lane of its own. */
  namespace: string | null
  lane_key: string
  /** Goes on by itself: nobody waits for it, and no cancel of its parent reaches it. */
  detach: boolean
  /** Clocks of the watchdog that it is given for this child; of the others the run's own count. */
  timeouts?: Timeouts
}

/** What a signal may be called. */
export const SIGNAL_NAME = /^[A-Za-z0-9_.:-]{1,64}$/

/** The one that a call for a signal was answered with. */
export type ReadSignal = Omit<Signal, 'data'>

/** What a session can tell its run. */
export type SessionMessage =
  | { type: 'call.recorded'; call: SessionCall; child?: Delegation; signal?: ReadSignal }
  /** A child of an earlier attempt is waited for anew. */
  | { type: 'child.awaited' }
  /** The report is in the call; here it is without its output. */
  | { type: 'child.reported'; call: SessionCall; report: ChildReport }
  /** The code has ended and does not wait for the runs that it delegated. */
  | { type: 'children.dismissed' }
  | { type: 'tool.finished'; call: SessionCall }
  | ProgressReport
  | { type: 'run.completed'; output: Json; size: number }
  | { type: 'run.failed'; code: string; message: string }
  | { type: 'session.exited' }
  | { type: 'attempt.handed_over' }

/** The last thing that a session says, one of these. */
export const END_MESSAGES: ReadonlySet<SessionMessage['type']> = new Set([
  'run.completed',
  'run.failed',
  'session.exited',
  'attempt.handed_over',
])

/** The seam between an executor session and the actor of its run. A session reports; it never writes status itself. */
export interface SessionPort {
  /** The executor has begun the attempt: from here on it is the session that is silent or not. */
  begun(): void
  /** Decided in the order sent. */
  send(message: SessionMessage): void
  /**
   * Resolves when everything sent is committed and the node may act: what an effect waits for.
   * @throws SessionClosed when the run is no longer ours
   */
  barrier(): Promise<void>
  /**
   * The same for the start of something new, which to have come to is progress. A run of which a call hangs, or whose
   * turn took too long, is fed nothing until it recovers or is told to end.
   * @throws SessionClosed
   */
  clearance(): Promise<void>
  /**
   * Records the start of a tool call: true once it is committed and the node may act, false when the run takes no new
   * call (a cancel was first). `timeoutMs`: when the call ends by itself; null: it does not. @throws SessionClosed
   */
  begin(call: SessionCall, timeoutMs: number | null): Promise<boolean>
  /** The same for a delegation: the child run exists from then on. @throws SessionClosed */
  delegate(call: SessionCall, child: Delegation): Promise<boolean>
  /** Resolves when the delegated run has ended, in this attempt or before it. @throws SessionClosed */
  reportOf(childRunId: string): Promise<ChildReport>
  /**
   * Resolves with the next signal of this name, once it is there: it is read when the call is recorded with it.
   * @throws SessionClosed
   */
  signalNamed(name: string): Promise<Signal>
  /**
   * Nothing of the run is under way but these calls for signals: true once it is parked, which ends this session; false
   * when it takes that no more (a cancel was first). @throws SessionClosed
   */
  park(calls: SessionCall[]): Promise<boolean>
  /** Progress without a record. */
  beat(): void
}
