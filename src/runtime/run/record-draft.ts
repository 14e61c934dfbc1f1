import type { SessionCall } from '../../agents/port.ts'
import type { Json } from '../../json.ts'
import { newRecordId } from '../../ids.ts'
import type {
  AuditDraft,
  KeyDraft,
  RunDraft,
  RunRecord,
  WaitpointDraft,
} from '../../store/flush.ts'
import type { CheckpointType, HostedRow, RunRow, RunStatus } from '../../store/rows.ts'
import { type RunSnapshot, statusOf } from './codec.ts'
import { noticeType } from './notices.ts'

/** The fields of a run that its decisions change, beside the chart. */
export type RunFields = Pick<
  RunRow,
  | 'detail'
  | 'phase'
  | 'saying'
  | 'tool'
  | 'error_code'
  | 'error_message'
  | 'checkpoint_id'
  | 'checkpoint_type'
  | 'stuck_reason'
  | 'turn_extended_ms'
  | 'children'
  | 'model'
  | 'input_tokens'
  | 'output_tokens'
> & { cancel_requested: boolean }

/** What is decided and not yet taken by the committer: one record, however many decisions it holds. */
type Draft = Omit<RunRecord, 'change'> & {
  /** The run enters the line of its lane, coming from this status. */
  joinsFrom: RunStatus | null
  /** Something in it moved the run: what the watchdog alone has to say does not. */
  progress: boolean
}

/** What the facts of a decision are written into: the run's fields, and the rows of its next record. */
export class RecordDraft {
  readonly row: HostedRow
  readonly fields: RunFields
  chart: RunSnapshot
  /** What it has returned, if it has. */
  result: Json = null
  protected sequence: number
  protected draft: Draft | null = null
  #outputSize = 0

  constructor(row: HostedRow, chart: RunSnapshot) {
    this.row = row
    this.chart = chart
    this.sequence = row.last_sequence
    this.fields = {
      detail: row.detail,
      phase: row.phase,
      saying: row.saying,
      tool: row.tool,
      error_code: row.error_code,
      error_message: row.error_message,
      checkpoint_id: row.checkpoint_id,
      checkpoint_type: row.checkpoint_type,
      stuck_reason: row.stuck_reason,
      turn_extended_ms: row.turn_extended_ms,
      children: row.children,
      model: row.model,
      input_tokens: row.input_tokens,
      output_tokens: row.output_tokens,
      cancel_requested: row.cancel_requested_at !== null,
    }
  }

  get runId(): string {
    return this.row.run_id
  }

  get status(): RunStatus {
    return statusOf(this.chart)
  }

  event(event_type: string, visibility: 0 | 1 | 2, payload: Record<string, Json>): number {
    this.sequence += 1
    const { runId: run_id, sequence } = this
    const draft = this.open()
    draft.events.push({ run_id, sequence, event_type, visibility, payload })
    const type = noticeType(event_type, payload)
    if (type !== undefined) {
      const callback_url = this.row.options.callback_url ?? null
      draft.notices.push({ run_id, sequence, type, callback_url, output_size: this.#outputSize })
    }
    return sequence
  }

  checkpoint(type: CheckpointType): void {
    const checkpoint_id = `${this.runId}.${this.sequence + 1}`
    this.event('checkpoint_created', 2, { checkpoint_id, type })
    this.fields.checkpoint_id = checkpoint_id
    this.fields.checkpoint_type = type
  }

  call({ size, ...call }: SessionCall): void {
    const draft = this.open()
    draft.weight += size
    // One row per call and record: of a say that streamed several chunks, the latest.
    const nth = draft.results.findIndex((one) => one.tool_call_id === call.tool_call_id)
    const result = {
      run_id: this.runId,
      attempt: this.chart.context.attempt,
      begun_after: draft.results[nth]?.begun_after ?? this.sequence,
      settled_after: call.outcome === 'started' ? null : this.sequence,
      ...call,
    }
    if (nth === -1) draft.results.push(result)
    else draft.results[nth] = result
  }

  /** A letter that says nothing new any more, if it is there. */
  consume(dedupe_key: string): void {
    this.open().consumed.push({ run_id: this.runId, dedupe_key })
  }

  forgetCall(tool_call_id: string): void {
    this.open().forgotten.push({ run_id: this.runId, tool_call_id })
  }

  output(output: Json, size: number): void {
    const draft = this.open()
    draft.weight += size
    draft.payload = { ...draft.payload, run_id: this.runId, output }
    this.result = output
    this.#outputSize = size
  }

  input(input: Json): void {
    const draft = this.open()
    draft.payload = { ...draft.payload, run_id: this.runId, input }
  }

  key(key: KeyDraft): void {
    this.open().keys.push({ run_id: this.runId, ...key })
  }

  journal(content: Json): void {
    const journal_key = this.row.parent_run_id === null ? this.row.conversation_id : this.runId
    this.open().journals.push({ journal_key, content, run_id: this.runId })
  }

  waitpoint(waitpoint: Omit<WaitpointDraft, 'run_id'>): void {
    this.open().waitpoints.push({ run_id: this.runId, ...waitpoint })
  }

  /** Nobody needs to answer what it still asks. */
  withdrawQuestions(): void {
    this.open().withdrawn.push({ run_id: this.runId })
  }

  child(child: RunDraft, size: number): void {
    const draft = this.open()
    draft.children.push(child)
    draft.weight += size
    this.fields.children += 1
  }

  /** The runs that it has delegated and that are not over are told to end. */
  cascade(by: string, reason: string | null): void {
    this.open().cascades.push({ run_id: this.runId, by, reason })
  }

  /** Of the run nothing but its fields has changed. */
  touch(): void {
    this.open()
  }

  /** An audit row of something that no command asked for; what it has changed is known when all of it is decided. */
  audit(
    row: Pick<AuditDraft, 'actor' | 'role' | 'action' | 'reason' | 'code'> &
      Partial<Pick<AuditDraft, 'outcome'>>,
    request_id: string | null = null,
  ): void {
    this.open().audits.push({
      outcome: 'applied',
      ...row,
      audit_key: newRecordId(),
      target: this.runId,
      run_id: this.runId,
      request_id,
      before: null,
      after: null,
    })
  }

  /** The record that is open; the first thing written opens it. */
  protected open(): Draft {
    this.draft ??= {
      events: [],
      results: [],
      forgotten: [],
      payload: null,
      keys: [],
      journals: [],
      waitpoints: [],
      withdrawn: [],
      children: [],
      cascades: [],
      outcomes: [],
      consumed: [],
      audits: [],
      notices: [],
      started_at: this.row.started_at,
      joinsFrom: null,
      progress: false,
      weight: 1000,
    }
    return this.draft
  }
}
