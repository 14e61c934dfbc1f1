import type { RunFact } from '../../machines/run-setup.ts'
import { clip } from '../clip.ts'
import { formatDuration } from '../duration.ts'
import type { Json } from '../json.ts'
import type { RecordDraft } from './record-draft.ts'
import type { Resolution, RunMessage, UnknownCall } from './messages.ts'
import type { ModelReply } from '../agents/agent.ts'
import { noteVerdict } from './verdicts.ts'
import { SAYING_LENGTH_MAX, type SessionCall } from '../agents/port.ts'

const USER = 0
const OPERATOR = 1

/** Longest phase that a run keeps: a tool's progress note may be anything. */
const PHASE_LENGTH_MAX = 200
/** Longest error message that a run keeps: it is part of every list. */
const ERROR_LENGTH_MAX = 2_000

/**
 * What each fact that the chart names writes into the record of its decision. A fact that a message of another type
 * caused writes nothing: the chart is the judge of which go together.
 */
export const FACTS: Record<RunFact, (draft: RecordDraft, message: RunMessage) => void> = {
  noteCall(draft, message) {
    if (message.type === 'tool.started') return noteToolStarted(draft, message.call)
    if (message.type === 'tool.finished') return noteToolFinished(draft, message.call)
    if (message.type === 'call.recorded') return noteRecorded(draft, message.call)
  },

  noteProgress(draft, message) {
    if (message.type !== 'progress.reported') return
    const { phase, saying, call, delta, model, failure } = message
    if (phase !== undefined) draft.fields.phase = clip(phase, PHASE_LENGTH_MAX)
    if (saying !== undefined) draft.fields.saying = saying
    if (!call) return draft.touch()
    draft.call(call)
    const { tool_call_id } = call
    if (model !== undefined) {
      draft.fields.model = model
      draft.event('model_call_started', OPERATOR, { tool_call_id, model })
    }
    if (delta) draft.event('message_delta', USER, { ...delta, message_id: tool_call_id })
    if (failure) {
      const { model: failed } = draft.fields
      draft.event('model_call_finished', OPERATOR, {
        tool_call_id,
        model: failed,
        outcome: 'failed',
        kind: failure.kind,
      })
    }
  },

  noteCancel(draft, message) {
    if (message.type !== 'cancel.requested') return
    draft.fields.cancel_requested = true
    draft.event('cancel_requested', OPERATOR, { by: message.by, reason: message.reason })
  },

  noteQuestions(draft, message) {
    if (message.type === 'attempt.lost') {
      draft.fields.detail = 'crash_loop'
      return askCrashLoop(draft, message.reason)
    }
    if (message.type !== 'human.asked') return
    draft.fields.detail = message.waitpoints[0]?.kind ?? null
    for (const { tool, ...question } of message.waitpoints) {
      if (question.tool_call_id !== null && tool !== null) {
        draft.event('tool_finished', OPERATOR, {
          tool_call_id: question.tool_call_id,
          tool,
          outcome: 'unknown',
          duration_ms: null,
        })
      }
      ask(draft, question)
    }
    draft.checkpoint('human_pause')
  },

  noteAnswer(draft, message) {
    if (message.type !== 'human.answered') return
    const { token_id, by, resolution, call } = message
    draft.waitpoint({
      token_id,
      kind: call ? 'unknown_tool_call' : 'crash_loop',
      tool_call_id: call?.tool_call_id ?? null,
      prompt: '',
      schema: null,
      status: 'completed',
      data: resolution as unknown as Json,
      completed_by: by,
    })
    // With more questions open the run goes on waiting, and for the same reason.
    if (draft.status !== 'waiting_on_human') draft.fields.detail = null
    draft.event('human_answered', USER, { token_id, by })
    if (call) noteResolution(draft, call, resolution)
  },

  noteInput(draft, message) {
    if (message.type !== 'input.replaced') return
    draft.input(message.input)
    if (message.key) draft.key(message.key)
    draft.event('run_input_replaced', USER, {})
  },

  // A manual resume: the former end is forgotten, calls of unknown outcome are settled as the operator says.
  noteResumeRequest(draft, message) {
    if (message.type !== 'resume.requested') return
    for (const { call, resolution } of message.resolutions) noteResolution(draft, call, resolution)
    draft.fields.detail = null
    draft.fields.error_code = null
    draft.fields.error_message = null
    draft.fields.cancel_requested = false
  },

  noteResumed(draft, message) {
    if (message.type !== 'session.ready') return
    draft.fields.detail = null
    draft.event('run_resumed', USER, {
      checkpoint_id: draft.fields.checkpoint_id,
      attempt: draft.chart.context.attempt,
      replayed: message.replayed.length,
    })
    for (const { tool_call_id, tool } of message.replayed) {
      draft.event('tool_finished', OPERATOR, {
        tool_call_id,
        tool,
        outcome: 'replayed',
        duration_ms: 0,
      })
    }
  },

  noteLost(draft, message) {
    if (message.type !== 'attempt.lost') return
    draft.fields.phase = null
    draft.fields.detail = message.reason
  },

  noteOutcome(draft, message) {
    draft.fields.phase = null
    if (message.type === 'run.completed' && draft.status === 'completed') {
      draft.output(message.output, message.size)
      draft.checkpoint('final')
    }
    if (message.type === 'run.failed') {
      draft.fields.error_code = message.code
      draft.fields.error_message = clip(message.message, ERROR_LENGTH_MAX)
    }
    if (message.type === 'queue.expired') {
      draft.fields.detail = 'queue timeout'
      draft.fields.error_code = 'queue_timeout'
      draft.fields.error_message = `It waited longer than ${formatDuration(message.limit_ms)} for its lane or a free slot`
    }
    if (message.type === 'run.recycled') {
      draft.fields.error_code = message.verdict ? 'auto_terminated' : 'recycled'
      const why = draft.fields.stuck_reason ?? 'not stuck, forced'
      draft.fields.error_message = message.verdict
        ? `Execution auto-terminated after ${Math.ceil(message.verdict.stuck_ms / 60_000)} minutes by watchdog`
        : `Recycled by ${message.by}: ${why}`
    }
    if (draft.status === 'timed_out' && message.type === 'attempt.lost') {
      draft.fields.error_code = 'attempt_lost'
      draft.fields.error_message = `Attempt ${draft.chart.context.attempt} was lost: ${message.reason}`
    }
  },

  noteVerdict(draft, message) {
    if ('verdict' in message && message.verdict) noteVerdict(draft, message.verdict)
  },

  noteExtended(draft, message) {
    if (message.type !== 'turn.extended') return
    draft.fields.turn_extended_ms += message.by_ms
    draft.touch()
  },

  noteReaders(draft, message) {
    if (message.type === 'readers.gone')
      draft.event('run_orphaned', OPERATOR, { grace_ms: message.grace_ms })
    if (message.type === 'readers.back') draft.event('run_watched', OPERATOR, {})
  },

  // Whatever the message was: what the chart says of being stuck has changed, or has not.
  noteStuck(draft, message) {
    const was = draft.fields.stuck_reason
    const { stuck_reason } = draft.chart.context
    if (was === stuck_reason) return
    if (message.type === 'stuck.noted') {
      const { clock, limit_ms, since } = message
      draft.event('run_stuck', OPERATOR, { stuck_reason, clock, limit_ms, since })
    } else draft.event('run_recovered', OPERATOR, { stuck_reason: was })
  },
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

function noteRecorded(draft: RecordDraft, call: SessionCall): void {
  draft.call(call)
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
function noteResolution(draft: RecordDraft, call: UnknownCall, resolution: Resolution): void {
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

function askCrashLoop(draft: RecordDraft, reason: string): void {
  ask(draft, {
    token_id: `wp_${draft.runId}.${draft.chart.context.attempt}`,
    kind: 'crash_loop',
    tool_call_id: null,
    prompt: `${draft.chart.context.barren_attempts} attempts in a row ended without a new checkpoint, the last one so: ${reason}. Try again?`,
  })
  draft.checkpoint('human_pause')
}

function ask(
  draft: RecordDraft,
  question: { token_id: string; kind: string; tool_call_id: string | null; prompt: string },
): void {
  draft.waitpoint({ ...question, schema: null, status: 'pending', data: null, completed_by: null })
  const { token_id, prompt } = question
  draft.event('human_asked', USER, { token_id, prompt, schema: null, expires_at: null })
}
