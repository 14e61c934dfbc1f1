import type { RunFact } from '../../../machines/run-setup.ts'
import { clip } from '../../clip.ts'
import { formatDuration } from '../../duration.ts'
import type { Json } from '../../json.ts'
import type { RecordDraft } from './record-draft.ts'
import { noteCall, noteResolution, noteUndelegated } from './call-facts.ts'
import type { Question, RunMessage } from './messages.ts'
import { noteVerdict } from './verdicts.ts'

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
  noteCall,

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
    const { by, reason, node_id = null } = message
    draft.event('cancel_requested', OPERATOR, { by, reason, node_id })
    if (draft.chart.context.children > 0) {
      const why = reason === null ? '' : `: ${reason}`
      draft.cascade(by, `the run that delegated it was cancelled${why}`)
    }
  },

  noteDismissal(draft) {
    draft.cascade(draft.runId, 'the run that delegated it has ended without waiting for it')
  },

  noteQuestions(draft, message) {
    if (message.type === 'attempt.lost') {
      draft.fields.detail = 'crash_loop'
      return askCrashLoop(draft, message.reason)
    }
    if (message.type !== 'human.asked') return
    draft.fields.detail = message.waitpoints[0]?.kind ?? null
    for (const call of message.calls ?? []) draft.call(call)
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
    const { token_id, by, kind, resolution, call, dismissed = [] } = message
    const over = { kind, name: null, tool_call_id: null, prompt: '', schema: null }
    const data = resolution as unknown as Json
    draft.waitpoint({ ...over, token_id, status: 'completed', data, completed_by: by })
    for (const other of dismissed)
      draft.waitpoint({
        ...over,
        token_id: other,
        status: 'cancelled',
        data: null,
        completed_by: null,
      })
    // With more questions open the run goes on waiting, and for the same reason.
    if (draft.status !== 'waiting_on_human') draft.fields.detail = null
    draft.event('human_answered', USER, { token_id, by })
    if (call && resolution) noteResolution(draft, call, resolution)
  },

  noteInput(draft, message) {
    if (message.type !== 'input.replaced') return
    draft.input(message.input)
    if (message.key) draft.key(message.key)
    const { name, role, requestId } = message.caller
    draft.event('run_input_replaced', USER, { by: name })
    draft.audit(
      { actor: name, role, action: 'run.replace_input', reason: null, code: null },
      requestId,
    )
  },

  // A manual resume: the former end is forgotten with what it has cut off, calls of unknown outcome are settled as the
  // operator says.
  noteResumeRequest(draft, message) {
    if (message.type !== 'resume.requested') return
    for (const { call, resolution } of message.resolutions) noteResolution(draft, call, resolution)
    for (const delegation of message.anew ?? []) noteUndelegated(draft, delegation)
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
    for (const { tool_call_id, kind, tool } of message.replayed) {
      if (kind !== 'tool') continue
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
    // What it waited for before is not why it has ended.
    if (draft.status === 'cancelled') draft.fields.detail = null
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
      const { clock, tool_call_id, limit_ms, since } = message
      draft.event('run_stuck', OPERATOR, { stuck_reason, clock, tool_call_id, limit_ms, since })
    } else draft.event('run_recovered', OPERATOR, { stuck_reason: was })
  },
}

function askCrashLoop(draft: RecordDraft, reason: string): void {
  ask(draft, {
    token_id: `wp_${draft.runId}.${draft.chart.context.attempt}`,
    kind: 'crash_loop',
    name: null,
    tool_call_id: null,
    prompt: `${draft.chart.context.barren_attempts} attempts in a row ended without a new checkpoint, the last one so: ${reason}. Try again?`,
  })
  draft.checkpoint('human_pause')
}

function ask(draft: RecordDraft, question: Omit<Question, 'tool'>): void {
  draft.waitpoint({ ...question, schema: null, status: 'pending', data: null, completed_by: null })
  const { token_id, prompt } = question
  draft.event('human_asked', USER, { token_id, prompt, schema: null, expires_at: null })
}
