import type { RunFact } from '../../machines/run-setup.ts'
import type { Json } from '../json.ts'
import type { Ledger } from './ledger.ts'
import type { Resolution, RunMessage, SessionCall, UnknownCall } from './messages.ts'

const USER = 0
const OPERATOR = 1

/** Longest text that the saying line of a run keeps; the whole text is in its `message` event. */
const SAYING_LENGTH_MAX = 200

/**
 * What each fact that the chart names writes into the record of its decision. A fact that a message of another type
 * caused writes nothing: the chart is the judge of which go together.
 */
export const FACTS: Record<RunFact, (ledger: Ledger, message: RunMessage) => void> = {
  noteCall(ledger, message) {
    if (message.type === 'tool.started') return noteToolStarted(ledger, message.call)
    if (message.type === 'tool.finished') return noteToolFinished(ledger, message.call)
    if (message.type === 'call.recorded') return noteRecorded(ledger, message.call)
  },

  noteProgress(ledger, message) {
    if (message.type !== 'progress.reported') return
    if (message.phase !== undefined) ledger.fields.phase = message.phase
    if (message.saying !== undefined)
      ledger.fields.saying = message.saying.slice(0, SAYING_LENGTH_MAX)
    if (message.delta) {
      ledger.call(message.delta.call)
      ledger.event('message_delta', USER, { text: message.delta.text })
    }
  },

  noteCancel(ledger, message) {
    if (message.type !== 'cancel.requested') return
    ledger.fields.cancel_requested = true
    ledger.event('cancel_requested', OPERATOR, { by: message.by, reason: message.reason })
  },

  noteQuestions(ledger, message) {
    if (message.type === 'attempt.lost') {
      ledger.fields.detail = 'crash_loop'
      return askCrashLoop(ledger)
    }
    if (message.type !== 'human.asked') return
    ledger.fields.detail = message.waitpoints[0]?.kind ?? null
    for (const { tool, ...question } of message.waitpoints) {
      if (question.tool_call_id !== null && tool !== null) {
        ledger.event('tool_finished', OPERATOR, {
          tool_call_id: question.tool_call_id,
          tool,
          outcome: 'unknown',
          duration_ms: null,
        })
      }
      ask(ledger, question)
    }
    ledger.checkpoint('human_pause')
  },

  noteAnswer(ledger, message) {
    if (message.type !== 'human.answered') return
    const { token_id, by, resolution, call } = message
    ledger.waitpoint({
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
    if (ledger.status !== 'waiting_on_human') ledger.fields.detail = null
    ledger.event('human_answered', USER, { token_id, by })
    if (call) noteResolution(ledger, call, resolution)
  },

  noteInput(ledger, message) {
    if (message.type !== 'input.replaced') return
    ledger.input(message.input)
    ledger.event('run_input_replaced', USER, {})
  },

  // A manual resume: the former end is forgotten, calls of unknown outcome are settled as the operator says.
  noteResumeRequest(ledger, message) {
    if (message.type !== 'resume.requested') return
    for (const { call, resolution } of message.resolutions) noteResolution(ledger, call, resolution)
    ledger.fields.detail = null
    ledger.fields.error_code = null
    ledger.fields.error_message = null
    ledger.fields.cancel_requested = false
  },

  noteResumed(ledger, message) {
    if (message.type !== 'session.ready') return
    ledger.event('run_resumed', USER, {
      checkpoint_id: ledger.fields.checkpoint_id,
      attempt: ledger.chart.context.attempt,
      replayed: message.replayed.length,
    })
    for (const { tool_call_id, tool } of message.replayed) {
      ledger.event('tool_finished', OPERATOR, {
        tool_call_id,
        tool,
        outcome: 'replayed',
        duration_ms: 0,
      })
    }
  },

  noteLost(ledger, message) {
    if (message.type !== 'attempt.lost') return
    ledger.fields.phase = null
    ledger.fields.detail = message.reason
  },

  noteOutcome(ledger, message) {
    ledger.fields.phase = null
    if (message.type === 'run.completed' && ledger.status === 'completed') {
      ledger.output(message.output, message.size)
      ledger.checkpoint('final')
    }
    if (message.type === 'run.failed') {
      ledger.fields.error_code = message.code
      ledger.fields.error_message = message.message
    }
    if (ledger.status === 'timed_out' && message.type === 'attempt.lost') {
      ledger.fields.error_code = 'attempt_lost'
      ledger.fields.error_message = `Attempt ${ledger.chart.context.attempt} was lost: ${message.reason}`
    }
  },
}

function noteToolStarted(ledger: Ledger, call: SessionCall): void {
  ledger.call(call)
  ledger.fields.tool = call.tool
  ledger.fields.phase = `calling ${call.tool}`
  ledger.event('tool_started', OPERATOR, {
    tool_call_id: call.tool_call_id,
    tool: call.tool,
    effects: call.effects,
  })
}

function noteToolFinished(ledger: Ledger, call: SessionCall): void {
  ledger.call(call)
  const { tool_call_id, tool, outcome, duration_ms } = call
  ledger.event('tool_finished', OPERATOR, { tool_call_id, tool, outcome, duration_ms })
  ledger.checkpoint('tool_result')
}

function noteRecorded(ledger: Ledger, call: SessionCall): void {
  ledger.call(call)
  if (call.kind === 'step') {
    ledger.event('step_finished', OPERATOR, { name: call.tool, duration_ms: call.duration_ms })
    ledger.checkpoint('tool_result')
  }
  if (call.kind === 'say') {
    ledger.fields.saying = (typeof call.result === 'string' ? call.result : '').slice(
      0,
      SAYING_LENGTH_MAX,
    )
    ledger.event('message', USER, { role: 'assistant', text: call.result })
  }
  if (call.kind === 'journal') {
    ledger.journal(call.result)
    ledger.event('journal_updated', OPERATOR, {
      fields: Object.keys((call.result ?? {}) as object),
    })
    ledger.checkpoint('journal_update')
  }
}

/** The human knows what became of the call: it is recorded as if it had told us itself. */
function noteResolution(ledger: Ledger, call: UnknownCall, resolution: Resolution): void {
  if (resolution.outcome === 'retry') return ledger.forgetCall(call.tool_call_id)
  const failed = resolution.outcome === 'failed'
  noteToolFinished(ledger, {
    ...call,
    settled: null,
    kind: 'tool',
    args_hash: null,
    effects: 'unsafe',
    outcome: resolution.outcome,
    result: failed ? null : (resolution.result ?? null),
    error_message: failed ? 'reported as failed by a human' : null,
    duration_ms: null,
    size: 0,
  })
}

function askCrashLoop(ledger: Ledger): void {
  ask(ledger, {
    token_id: `wp_${ledger.runId}.${ledger.chart.context.attempt}`,
    kind: 'crash_loop',
    tool_call_id: null,
    prompt: `${ledger.chart.context.barren_attempts} attempts in a row ended without a new checkpoint. Try again?`,
  })
  ledger.checkpoint('human_pause')
}

function ask(
  ledger: Ledger,
  question: { token_id: string; kind: string; tool_call_id: string | null; prompt: string },
): void {
  ledger.waitpoint({ ...question, schema: null, status: 'pending', data: null, completed_by: null })
  const { token_id, prompt } = question
  ledger.event('human_asked', USER, { token_id, prompt, schema: null, expires_at: null })
}
