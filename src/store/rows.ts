import type { Json } from '../json.ts'

/** The twelve names, in the order a run meets them. A run's status is the name of its leaf state. */
export const STATUSES = [
  'queued',
  'waiting_on_lane',
  'resuming',
  'running',
  'waiting_on_tool',
  'waiting_on_child',
  'cancel_requested',
  'waiting_on_human',
  'completed',
  'failed',
  'cancelled',
  'timed_out',
] as const
export type RunStatus = (typeof STATUSES)[number]

const TERMINAL_STATUSES: readonly RunStatus[] = ['completed', 'failed', 'cancelled', 'timed_out']
export const isTerminal = (status: RunStatus): boolean => TERMINAL_STATUSES.includes(status)

export type CheckpointType =
  | 'input'
  | 'llm_response'
  | 'tool_result'
  | 'journal_update'
  | 'human_pause'
  | 'final'

/** The chart's snapshot as stored: what `runtime/run/codec.ts` encodes. */
export interface EncodedChart {
  version: number
  value: Json
  context: Json
}

/**
 * The clock that has found a run stuck, or else the one that is over first, as its own node counts: at the moment of
 * `clock_at`, in milliseconds.
 */
export interface RowClock {
  /** What it is stuck with, or will be: `turn.timeout(600s)`. */
  reason: string
  /** The call that it is about, if it is about one. */
  tool_call_id: string | null
  /** How long it may take, and has taken; null: what it was found by is over. */
  limit_ms: number | null
  age_ms: number | null
  /** Until it is flagged or, being stuck, ended; null: that does not come by itself. */
  left_ms: number | null
  /** It does not count on for the moment. */
  stands: boolean
}

/** A row of agent_runs. Times are RFC 3339 text. */
export interface RunRow {
  run_id: string
  conversation_id: string
  parent_run_id: string | null
  root_run_id: string
  agent: string
  surface: string
  created_by: string
  owner: string | null
  status: RunStatus
  detail: string | null
  lane_key: string
  lane_position: number | null
  holds_lane: boolean
  queue: string
  priority: number
  run_at: string | null
  attempt: number
  owner_epoch: number | null
  version: number
  record_id: string | null
  last_sequence: number
  chart: EncodedChart
  line_events: string[]
  line_since: string | null
  cancel_requested_at: string | null
  phase: string | null
  saying: string | null
  tool: string | null
  error_code: string | null
  error_message: string | null
  checkpoint_id: string | null
  checkpoint_type: CheckpointType | null
  /** What the watchdog found; null while all is well. */
  stuck_reason: string | null
  stuck_since: string | null
  /** Runs that it has delegated so far. */
  children: number
  /** Delegated without anybody waiting for it. */
  detached: boolean
  /** How much longer its turns may take than their clock says. */
  turn_extended_ms: number
  /** The model called last, as `provider:model`. */
  model: string | null
  input_tokens: number
  output_tokens: number
  created_at: string
  started_at: string | null
  ended_at: string | null
  status_since: string
  last_heartbeat_at: string | null
  last_progress_at: string | null
  /** Null: no clock counts. */
  clock: RowClock | null
  clock_at: string | null
}

/** Where a fork comes from; the run may have been deleted since. */
export interface Origin {
  run_id: string
  checkpoint_id: string
}

/** How long a run may be silent, and be stuck, as whoever posted it says. */
export interface Patience {
  timeouts?: { reasoning?: string; tool?: string; turn?: string }
  execution_timeout_override?: string | null
}

/** What is read once when a run starts. */
export interface RunOptions extends Patience {
  request_hash?: string
  /** Of a child run: what the runs above it were given, the nearest first to count. */
  above?: Patience
  callback_url?: string | null
  traceparent?: string
  /** Of a child run: the lanes of the runs above it, the nearest first. */
  lanes_above?: string[]
  forked_from?: Origin
}

/** A run as a node hosts it: the row with its payloads. */
export interface HostedRow extends RunRow {
  input: Json
  metadata: Record<string, Json>
  options: RunOptions
  /** Unread letters, its own or of a run above it, that end it; null: there are none. */
  ending_mail: InboxRow[] | null
}

export const VISIBILITIES = ['user', 'operator', 'internal'] as const
export type Visibility = (typeof VISIBILITIES)[number]
export const visibilityLevel = (visibility: Visibility): number => VISIBILITIES.indexOf(visibility)

/** An event as it goes to readers. */
export interface RunEventRow {
  id: number
  event_type: string
  run_id: string
  conversation_id: string
  /** The creator of its run: not for readers, but for what they may read. */
  created_by: string
  sequence: number
  visibility: Visibility
  payload: Record<string, Json>
  created_at: string
}

/** How a side effect may be repeated: never, freely, or under a stable idempotency key. */
export type Effects = 'none' | 'idempotent' | 'unsafe'
export type CallKind =
  | 'tool'
  | 'step'
  | 'model'
  | 'value'
  | 'say'
  | 'journal'
  | 'delegate'
  | 'signal'

/** A row of the idempotency envelope. */
export interface CallRow {
  run_id: string
  tool_call_id: string
  /** What the model's provider called it; servers repeat such ids. */
  provider_call_id: string | null
  position: number
  /** Its place in the order in which the agent's code saw results. */
  settled: number | null
  /** The sequence of the run's last event before it began; null: recorded before this was kept. */
  begun_after: number | null
  /** The same of its outcome: a call belongs to every checkpoint with a higher sequence. */
  settled_after: number | null
  kind: CallKind
  tool: string
  args_hash: string | null
  /** Of a tool call, for people: whole, or the beginning of its JSON text when it is long. */
  input: Json
  effects: Effects | null
  outcome: 'started' | 'succeeded' | 'failed'
  result: Json
  error_message: string | null
  attempt: number
  started_at: string | null
  finished_at: string | null
  duration_ms: number | null
}

/** What became of a delegated run. */
export interface ChildReport {
  child_run_id: string
  /** A run that has timed out has failed. */
  status: 'completed' | 'failed' | 'delegation_cancelled' | 'detached'
  output: Json
  error_message: string | null
  /** Of a failed one; `timed_out` when that is what it did. */
  error_code?: string
  /** Who cancelled it, and why. */
  by?: string
  reason?: string | null
}

export interface WaitpointRow {
  token_id: string
  run_id: string
  kind: string
  /** Of the signal that the run is parked for. */
  name: string | null
  tool_call_id: string | null
  prompt: string
  schema: Json
  status: 'pending' | 'completed' | 'expired' | 'cancelled'
  created_at: string
  expires_at: string | null
}

export interface InboxRow {
  run_id: string
  kind: string
  /** Of a signal. */
  name: string | null
  dedupe_key: string
  payload: Record<string, Json>
}

/** A signal that its run has not read yet. */
export interface Signal {
  /** Of the command that sent it. */
  command_id: string
  data: Json
  by: string
}

export interface CommandRow {
  command_id: string
  run_id: string
  kind: string
  payload: Record<string, Json>
  status: 'pending' | 'applied' | 'refused'
  outcome: string | null
}
