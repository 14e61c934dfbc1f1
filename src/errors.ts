/**
 * What the service refuses or cannot do right now, as values with a stable `code`. `http/problem.ts` maps each code to
 * a status. Messages carry ids and field names, never payloads.
 */

/** One field that does not fit: `path` like `steps[0].think`, dotted from the body's root. */
export interface FieldError {
  path: string
  message: string
}

export type RefusalCode =
  | 'bad_request'
  | 'unauthorized'
  | 'forbidden'
  | 'not_found'
  | 'method_not_allowed'
  | 'validation_error'
  | 'unknown_agent'
  | 'unknown_queue'
  | 'body_too_large'
  | 'unsupported_encoding'
  | 'head_too_large'
  | 'request_timeout'
  | 'lane_busy'
  | 'idempotency_conflict'
  | 'not_cancellable'
  | 'not_active'
  | 'not_stuck'
  | 'not_a_subagent'
  | 'ambiguous_target'
  | 'not_resumable'
  | 'not_forkable'
  | 'unknown_tool_call'
  | 'not_waiting'
  | 'ambiguous_answer'
  | 'waits_for_signal'
  | 'too_many_signals'
  | 'agent_exists'
  | 'too_many_agents'
  | 'token_exists'
  | 'name_taken'
  | 'nothing_to_rotate'
  | 'rate_limited'
  | 'too_many_connections'
  | 'keys_unavailable'
  | 'record_refused'
  | 'database_unavailable'
  | 'draining'

export class Refusal extends Error {
  readonly code: RefusalCode
  /** Members added to the problem document. */
  readonly details: Record<string, unknown>

  constructor(
    code: RefusalCode,
    message: string,
    details: Record<string, unknown> = {},
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'Refusal'
    this.code = code
    this.details = details
  }
}

/** Why the service cannot start, in words for whoever starts it. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** The run belongs to another node now, or its session was ended: whoever gets this stops at once, without a trace. */
export class SessionClosed extends Error {
  constructor(reason: string) {
    super(reason)
    this.name = 'SessionClosed'
  }
}

/** What to tell of whatever was thrown; never throws itself, and is fit to be stored. */
export const messageOf = (error: unknown): string =>
  textOf(error).replaceAll('\0', '\uFFFD').toWellFormed()

function textOf(error: unknown): string {
  if (typeof error === 'string') return error
  try {
    const told: unknown = error instanceof Error ? error.message : `${String(error)} was thrown`
    return String(told)
  } catch {
    return 'something without a text was thrown'
  }
}
