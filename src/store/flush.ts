import type { Json } from '../json.ts'
import type {
  CallRow,
  CheckpointType,
  EncodedChart,
  HostedRow,
  RunOptions,
  RunStatus,
} from './rows.ts'

/** A run to be created; see `runlane.insert_runs`. */
export interface RunDraft {
  run_id: string
  conversation_id: string
  parent_run_id: string | null
  root_run_id: string
  /** A child run that reports to nobody. */
  detached?: boolean
  agent: string
  surface: string
  created_by: string
  owner: string | null
  lane_key: string
  lane_policy: 'enqueue' | 'reject' | 'interrupt' | 'coalesce'
  /** Its lane policy may replace and interrupt runs of the same creator only. */
  only_own?: true
  /** Goes to the front of its lane. */
  front: boolean
  queue: string
  priority: number
  run_at: string | null
  chart: EncodedChart
  idempotency_key: string | null
  /** With `interrupt`: the id of the cancel command for the run that holds the lane. */
  interrupt_command_id: string | null
  input: Json
  metadata: Record<string, Json>
  options: RunOptions
  fork?: ForkDraft
}

/** The change of one run's row: everything a record may set, always whole, because the owner knows the whole. */
export interface RowChange {
  run_id: string
  /** Fence: the row changes only where both match. Null: the run has no owner, compare-and-set on version. */
  owner_epoch: number | null
  version: number
  record_id: string
  last_sequence: number
  status: RunStatus
  detail: string | null
  holds_lane: boolean
  attempt: number
  /** Null when the chart did not change. */
  chart: EncodedChart | null
  releases: boolean
  /** The run enters the line of its lane, coming from this status; SQL then decides queued or waiting_on_lane. */
  joins_from: RunStatus | null
  frees_lane: boolean
  ends: boolean
  cancel_requested: boolean
  phase: string | null
  saying: string | null
  tool: string | null
  error_code: string | null
  error_message: string | null
  checkpoint_id: string | null
  checkpoint_type: CheckpointType | null
  stuck_reason: string | null
  turn_extended_ms: number
  /** Runs that it has delegated so far. */
  children: number
  /** The run itself has moved; false for what the watchdog alone has to say. */
  progress: boolean
  clock: HostedRow['clock']
  model: string | null
  input_tokens: number
  output_tokens: number
}

export interface EventDraft {
  run_id: string
  sequence: number
  event_type: string
  /** 0 user, 1 operator, 2 internal. */
  visibility: 0 | 1 | 2
  payload: Record<string, Json>
}

/** A row of the envelope as it is written; the database adds the times. */
export type CallDraft = Omit<CallRow, 'started_at' | 'finished_at'>

export interface WaitpointDraft {
  token_id: string
  run_id: string
  kind: string
  /** Of the signal that is waited for. */
  name: string | null
  tool_call_id: string | null
  prompt: string
  schema: Json
  status: 'pending' | 'completed' | 'cancelled'
  data: Json
  completed_by: string | null
}

export interface CommandDraft {
  command_id: string
  run_id: string
  kind: string
  payload: Record<string, Json>
  requested_by: string
  reason: string | null
  /** Of a command that is applied by being written: its audit row, written with it. */
  audit?: AuditDraft
}

export interface AuditDraft {
  /** Written once, however often its flush is sent. */
  audit_key: string
  actor: string
  role: string
  action: string
  target: string
  run_id: string | null
  reason: string | null
  outcome: 'applied' | 'refused'
  code: string | null
  request_id: string | null
  /** Of the target, what the action has changed; null: nothing was there, or nothing is. Never a secret or a payload. */
  before: Json
  after: Json
}

/** Something that receivers of webhooks are told of, if there are any. */
export interface NoticeDraft {
  run_id: string
  /** Of the event that it tells of. */
  sequence: number
  /** Of the CloudEvent. */
  type: string
  /** The receiver that the run itself names. */
  callback_url: string | null
  /** Characters of JSON of the run's output; 0 while there is none. */
  output_size: number
}

/** A notice on its way to one receiver; the database adds what it says. */
export interface DeliveryDraft {
  run_id: string
  sequence: number
  type: string
  with_output: boolean
  url: string
  /** With the port. */
  host: string
}

/** The Idempotency-Key of a request that replaced the input of a waiting run. */
export interface KeyDraft {
  created_by: string
  idempotency_key: string
  request_hash: string
}

/** One decision, or several of the same run that were made before the committer took them: all or nothing. */
export interface RunRecord {
  change: RowChange
  events: EventDraft[]
  results: CallDraft[]
  forgotten: { run_id: string; tool_call_id: string }[]
  payload: { run_id: string; output?: Json; input?: Json } | null
  keys: (KeyDraft & { run_id: string })[]
  journals: { journal_key: string; content: Json; run_id: string }[]
  waitpoints: WaitpointDraft[]
  /** Its open questions are cancelled: it was parked, and has ended. */
  withdrawn: { run_id: string }[]
  /** Runs that it delegates: made with the decision, or not at all. */
  children: RunDraft[]
  /** Its open children are told to end. */
  cascades: { run_id: string; by: string; reason: string | null }[]
  outcomes: { run_id: string; command_id: string; status: 'applied' | 'refused'; outcome: string }[]
  consumed: { run_id: string; dedupe_key: string }[]
  /** Audit rows of what was decided: written only if the record is. */
  audits: AuditDraft[]
  notices: NoticeDraft[]
  /** When its run was claimed first; null: never. */
  started_at: string | null
  /** Characters of JSON that its payloads take, roughly. */
  weight: number
}

/** A request that creates runs, all or nothing. `careful`: needs a locked look (keys, lane policies) run by run. */
export interface CreateGroup {
  group_id: string
  /** Characters of JSON that it takes, roughly. */
  weight: number
  careful: boolean
  members: RunDraft[]
}

/** One call of `runlane.commit`. */
export interface Flush {
  groups: CreateGroup[]
  records: RunRecord[]
  /** Of the notices in the records. */
  deliveries: DeliveryDraft[]
  commands: CommandDraft[]
  audits: AuditDraft[]
  adopt: { epoch: number; all_others: boolean; limit: number } | null
  claim: { epoch: number; limit: number } | null
}

type GroupRefusal = 'lane_busy' | 'idempotency_conflict' | 'coalesce' | 'not_found' | 'forbidden'

export type GroupAnswer =
  | { group_id: string; runs: { run_id: string; existing: boolean }[] }
  | { group_id: string; refused: GroupRefusal; run_id: string }

export interface FlushAnswer {
  at: string
  /** Runs whose records were written; null: all of them. */
  accepted: string[] | null
  groups: GroupAnswer[]
  claimed: HostedRow[]
  adopted: HostedRow[]
  /** Runs that letters were written to: reports of children, cancels of parents. */
  mail: string[]
  last_event_id: number
}

/** Rows of a record that go into the flush as they are. */
const ROWS = [
  ...(['events', 'results', 'forgotten', 'keys', 'journals', 'waitpoints', 'withdrawn'] as const),
  ...(['cascades', 'outcomes', 'consumed'] as const),
]

/** The flush as the commit function reads it. Sections that are empty are left out: the function skips them. */
export function flushText(flush: Flush): string {
  const sections: Record<string, unknown> = {}
  const put = (name: string, rows: unknown[]): void => {
    if (rows.length > 0) sections[name] = rows
  }
  const plain = flush.groups.filter((group) => !group.careful).flatMap((group) => group.members)
  put(
    'creates',
    plain.map((member, ord) => ({ ord, ...member })),
  )
  put(
    'groups',
    flush.groups
      .filter((group) => group.careful)
      .map(({ group_id, members }, ord) => ({ ord, group_id, members })),
  )
  const { records } = flush
  put(
    'records',
    records.map((record) => record.change),
  )
  for (const name of ROWS) {
    put(
      name,
      records.flatMap((record): unknown[] => record[name]),
    )
  }
  put(
    'payloads',
    records.flatMap((record) => record.payload ?? []),
  )
  put(
    'children',
    records.flatMap((record) => record.children.map((child, ord) => ({ ord, ...child }))),
  )
  put('deliveries', flush.deliveries)
  const commands = flush.commands.map(({ audit: _audit, ...command }, ord) => ({ ord, ...command }))
  const { signals = [], others = [] } = Object.groupBy(commands, ({ kind }) =>
    kind === 'signal' ? 'signals' : 'others',
  )
  put('commands', others)
  put('signals', signals)
  put('audits', [
    ...flush.audits,
    ...flush.commands.flatMap(({ audit }) => (audit ? { ...audit, of_command: true } : [])),
    ...records.flatMap((record) => record.audits.map((audit) => ({ ...audit, of_record: true }))),
  ])
  if (flush.adopt) sections['adopt'] = flush.adopt
  if (flush.claim) sections['claim'] = flush.claim
  return JSON.stringify(sections)
}

/** What a new run takes over; see `runlane.fork_run`. */
export interface ForkDraft {
  run_id: string
  /** Of the checkpoint: what was settled before it is taken over. */
  sequence: number
  /** Of the checkpoint that the new run has of it. */
  type: CheckpointType
  /** Written if the run is made. */
  audit: AuditDraft
}
