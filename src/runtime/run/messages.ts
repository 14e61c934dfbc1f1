import type { RunEvent, WatchdogClock } from '../../../machines/run-setup.ts'
import type {
  ChildReport,
  Delegation,
  ProgressReport,
  ReadSignal,
  SessionCall,
} from '../../agents/port.ts'
import type { Probe } from '../../executors/local/session.ts'
import type { Json } from '../../json.ts'
import type { AuditDraft, KeyDraft } from '../../store/flush.ts'
import type { CallRow } from '../../store/rows.ts'

/** A question that parks a run. */
export interface Question {
  token_id: string
  kind: 'unknown_tool_call' | 'crash_loop' | 'signal'
  /** Of the signal that is waited for. */
  name: string | null
  tool_call_id: string | null
  tool: string | null
  prompt: string
}

/** Another input for a run that still waits, and who gives it. */
export interface Replacement {
  input: Json
  key: KeyDraft | null
  caller: { name: string; role: string; requestId: string | null }
}

/** Why the supervisor ends a run, or would end it. */
export interface Verdict {
  action:
    | 'auto_terminate'
    | 'time_out'
    | 'queue_timeout'
    | 'force_cancel'
    | 'recover'
    | 'cancel_orphan'
  /** `would_end`: only to be told of (shadow). `held`: too many of its class would have been ended at once. */
  result: 'ended' | 'would_end' | 'held'
  clock: WatchdogClock | 'heartbeat' | 'queue' | 'cancel' | 'report' | 'readers'
  /** What the clock found, such as `tool_call.timeout(150s)`. */
  stuck_reason: string
  /** The call that it is about; only of the clock `tool`. */
  tool_call_id?: string | null
  /** How long a run may be so, and how long this one is. */
  limit_ms: number
  stuck_ms: number
  /** The last thing that is known of its executor; null: nothing, it is another node's. */
  executor_silent_ms: number | null
  /** Whether its executor knows it; null: it was not asked, it is another node's. */
  probe: Probe | null
}

/** What a human says of a call whose outcome is unknown, or of a crash loop. */
export interface Resolution {
  outcome: 'succeeded' | 'failed' | 'retry'
  result?: Json
}

export interface UnknownCall {
  tool_call_id: string
  position: number
  tool: string
}

interface Payloads {
  'call.recorded': {
    call: SessionCall
    child?: Delegation
    /** The one that it has read. */
    signal?: ReadSignal
  }
  /** `timeout_ms`: when the call ends by itself, as its tool says; null: it does not. */
  'tool.started': { call: SessionCall; timeout_ms: number | null }
  'tool.finished': { call: SessionCall }
  'child.started': { call: SessionCall; child: Delegation }
  /** Without a call when no code waits for it: its run is ending. */
  'child.reported': { call: SessionCall | null; report: ChildReport }
  'progress.reported': Omit<ProgressReport, 'type'>
  'session.ready': { replayed: Pick<CallRow, 'tool_call_id' | 'kind' | 'tool'>[] }
  /** With the calls that go on waiting while nothing of the run is in memory. */
  'human.asked': { waitpoints: Question[]; calls?: SessionCall[] }
  'human.answered': {
    token_id: string
    by: string
    kind: Question['kind']
    /** Null of a signal: it is read by the call that waits for it. */
    resolution: Resolution | null
    call: UnknownCall | null
    /** Waitpoints that nobody has to complete any more. */
    dismissed?: string[]
  }
  'input.replaced': Replacement
  'run.completed': { output: Json; size: number }
  'run.failed': { code: string; message: string }
  /** `node_id`: the node that brought it to the run. */
  'cancel.requested': { by: string; reason: string | null; node_id?: string }
  /** `by` the runtime: there was no session that could have said it. */
  'session.exited': { by?: 'runtime' }
  'run.recycled': { by: string; verdict?: Verdict }
  'verdict.noted': { verdict: Verdict }
  'queue.expired': { limit_ms: number; verdict?: Verdict }
  'readers.gone': { grace_ms: number }
  'turn.extended': { by_ms: number }
  'stuck.noted': { limit_ms: number; since: string }
  /** `forced`: nothing is to be left of what it has delegated. */
  'attempt.lost': { forced?: true }
  'resume.requested': {
    by: string
    resolutions: { call: UnknownCall; resolution: Resolution }[]
    /** Delegations that count as not made, with the end of the run that each of them had made. */
    anew?: { tool_call_id: string; report: ChildReport }[]
  }
}

/** Where a message came from, when it came through the inbox: consumed by the decision that it leads to. */
export interface Letter {
  dedupe_key: string
  command_id: string | null
  kind: string
  /** Whose action it is: the audit row is written with the decision, and says what became of it. */
  audit: Pick<AuditDraft, 'action' | 'actor' | 'role' | 'reason' | 'request_id'>
}

type Message<E extends RunEvent> = E extends { type: infer T }
  ? (T extends keyof Payloads ? E & Payloads[T] : E) & { letter?: Letter }
  : never

/** An event of the run chart with what the record needs beyond the decision. */
export type RunMessage = Message<RunEvent>
export type MessageOf<T extends RunMessage['type']> = Extract<RunMessage, { type: T }>
