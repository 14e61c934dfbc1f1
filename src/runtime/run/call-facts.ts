import type { ModelReply } from '../../agents/agent.ts'
import {
  type ChildReport,
  type Delegation,
  SAYING_LENGTH_MAX,
  type SessionCall,
} from '../../agents/port.ts'
import { clip } from '../../clip.ts'
import { childOf, reportLetter } from './delegation.ts'
import type { MessageOf, Resolution, RunMessage, UnknownCall } from './messages.ts'
import type { RecordDraft } from './record-draft.ts'

const USER = 0
const OPERATOR = 1

/** What a call that was started, has moved on or has ended writes into the record of its decision. */
export function noteCall(draft: RecordDraft, message: RunMessage): void {
  if (message.type === 'tool.started') return noteToolStarted(draft, message.call)
  if (message.type === 'tool.finished') return noteToolFinished(draft, message.call)
  if (message.type === 'call.recorded') return noteRecorded(draft, message)
  if (message.type === 'child.started') return noteDelegated(draft, message.call, message.child)
  if (message.type === 'child.reported') return noteReported(draft, message)
}

function noteToolStarted(draft: RecordDraft, call: SessionCall): void {
  draft.call(call)
  draft.fields.tool = call.tool
  draft.fields.phase = `calling ${call.tool}`
  draft.event('tool_started', OPERATOR, {
    tool_call_id: call.tool_call_id,
    tool: call.tool,
    effects: call.effects,
  })
}

function noteToolFinished(draft: RecordDraft, call: SessionCall): void {
  draft.call(call)
  const { tool_call_id, tool, outcome, duration_ms } = call
  draft.event('tool_finished', OPERATOR, { tool_call_id, tool, outcome, duration_ms })
  draft.checkpoint('tool_result')
}

function noteDelegated(draft: RecordDraft, call: SessionCall, child: Delegation): void {
  draft.call(call)
  const { child_run_id, agent, namespace, detach } = child
  draft.child(childOf(draft.row, child), JSON.stringify(child.input).length)
  draft.fields.phase = `waiting for ${agent}`
  draft.event('child_started', OPERATOR, { child_run_id, agent, namespace, detach })
}

function noteReported(draft: RecordDraft, { call, report }: MessageOf<'child.reported'>): void {
  if (call) draft.call(call)
  noteChildEnd(draft, report)
  draft.checkpoint('tool_result')
}

/** What became of a run that it has delegated: told once, whether its code is given that or not. */
function noteChildEnd(draft: RecordDraft, report: ChildReport): void {
  const { child_run_id, status, by = null, reason = null } = report
  if (status === 'delegation_cancelled')
    draft.event('delegation_cancelled', OPERATOR, { child_run_id, by, reason })
  else draft.event('child_finished', OPERATOR, { child_run_id, status })
}

/** A delegation that counts as not made: what it had made has ended, and the code delegates anew. */
export function noteUndelegated(
  draft: RecordDraft,
  { tool_call_id, report }: { tool_call_id: string; report: ChildReport },
): void {
  draft.forgetCall(tool_call_id)
  noteChildEnd(draft, report)
  draft.consume(reportLetter(report.child_run_id).dedupe_key)
}

function noteRecorded(
  draft: RecordDraft,
  { call, child, signal }: MessageOf<'call.recorded'>,
): void {
  if (child) {
    noteDelegated(draft, call, child)
    draft.fields.phase = null
    draft.checkpoint('tool_result')
    return
  }
  draft.call(call)
  if (signal) {
    const { tool: name, tool_call_id } = call
    const { command_id, by } = signal
    const told = { command_id, kind: 'signal', by, reason: null, status: 'applied' }
    draft.event('command_applied', OPERATOR, { ...told, outcome: 'read', name, tool_call_id })
    draft.checkpoint('tool_result')
  }
  if (call.kind === 'step') {
    draft.event('step_finished', OPERATOR, { name: call.tool, duration_ms: call.duration_ms })
    draft.checkpoint('tool_result')
  }
  if (call.kind === 'say') {
    draft.fields.saying = clip(
      typeof call.result === 'string' ? call.result : '',
      SAYING_LENGTH_MAX,
    )
    draft.event('message', USER, {
      role: 'assistant',
      text: call.result,
      message_id: call.tool_call_id,
    })
  }
  if (call.kind === 'model' && call.outcome === 'succeeded') noteReply(draft, call)
  if (call.kind === 'journal') {
    draft.journal(call.result)
    draft.event('journal_updated', OPERATOR, {
      fields: Object.keys((call.result ?? {}) as object),
    })
    draft.checkpoint('journal_update')
  }
}

/** The whole answer, its tool calls and its cost in one record, before any of those tools runs. */
function noteReply(draft: RecordDraft, { tool_call_id, result, duration_ms }: SessionCall): void {
  const { text, usage, model, finish_reason, quiet } = result as unknown as ModelReply
  draft.fields.input_tokens += usage.input_tokens
  draft.fields.output_tokens += usage.output_tokens
  draft.event('model_call_finished', OPERATOR, {
    tool_call_id,
    model,
    outcome: 'succeeded',
    finish_reason,
    usage,
    duration_ms,
  })
  if (text !== '' && !quiet)
    draft.event('message', USER, { role: 'assistant', text, message_id: tool_call_id })
  draft.checkpoint('llm_response')
}

/** The human knows what became of the call: it is recorded as if it had told us itself. */
export function noteResolution(
  draft: RecordDraft,
  call: UnknownCall,
  resolution: Resolution,
): void {
  if (resolution.outcome === 'retry') return draft.forgetCall(call.tool_call_id)
  const failed = resolution.outcome === 'failed'
  noteToolFinished(draft, {
    ...call,
    settled: null,
    provider_call_id: null,
    kind: 'tool',
    args_hash: null,
    input: null,
    effects: 'unsafe',
    outcome: resolution.outcome,
    result: failed ? null : (resolution.result ?? null),
    error_message: failed ? 'reported as failed by a human' : null,
    duration_ms: null,
    size: 0,
  })
}
