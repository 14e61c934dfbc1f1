import { STATUS_CODES } from 'node:http'
import type { Context } from 'hono'
import { HTTPException } from 'hono/http-exception'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { Refusal, type RefusalCode } from '../errors.ts'
import { isConnectionError, isTransientError } from '../store/database.ts'

/** The one table from what was refused to its status. */
export const STATUS: Record<RefusalCode, ContentfulStatusCode> = {
  bad_request: 400,
  unauthorized: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  validation_error: 422,
  unknown_agent: 422,
  unknown_queue: 422,
  body_too_large: 413,
  unsupported_encoding: 415,
  head_too_large: 431,
  request_timeout: 408,
  lane_busy: 409,
  idempotency_conflict: 409,
  not_cancellable: 409,
  not_active: 409,
  not_stuck: 409,
  not_a_subagent: 409,
  ambiguous_target: 409,
  not_resumable: 409,
  not_forkable: 409,
  unknown_tool_call: 409,
  not_waiting: 409,
  ambiguous_answer: 409,
  waits_for_signal: 409,
  too_many_signals: 409,
  agent_exists: 409,
  too_many_agents: 409,
  token_exists: 409,
  name_taken: 409,
  nothing_to_rotate: 409,
  rate_limited: 429,
  too_many_connections: 429,
  keys_unavailable: 503,
  record_refused: 422,
  database_unavailable: 503,
  draining: 503,
}

/** Names of RFC 9110 that Node still has under older ones. */
const TITLES: Partial<Record<number, string>> = {
  413: 'Content Too Large',
  422: 'Unprocessable Content',
}

/** RFC 9457. `code` is stable; `detail` is for people. */
export function problem(c: Context, refusal: Refusal): Response {
  const status = STATUS[refusal.code]
  const headers: Record<string, string> = { 'content-type': 'application/problem+json' }
  if (status === 401) headers['www-authenticate'] = 'Bearer realm="runlane"'
  if (status === 503 || status === 429) headers['retry-after'] = '1'
  return c.body(problemDocument(refusal, c.req.path), status, headers)
}

/** As text; `instance` is the path that was asked for. */
export function problemDocument(refusal: Refusal, instance?: string): string {
  const status = STATUS[refusal.code]
  const body = {
    // First, so that they can't take the place of a member of the standard.
    ...refusal.details,
    type: 'about:blank',
    title: TITLES[status] ?? STATUS_CODES[status] ?? 'Error',
    status,
    code: refusal.code,
    detail: refusal.message,
    instance,
  }
  // What callers wrote is in there, and htmx takes whatever it is answered for markup.
  return JSON.stringify(body).replaceAll('<', '\\u003c')
}

/** What any thrown thing becomes. Anything unforeseen is a 500 without its message: that goes to the log. */
export function problemOf(error: unknown): Refusal | undefined {
  if (error instanceof Refusal) return error
  if (error instanceof HTTPException && error.status === 400)
    return new Refusal('bad_request', error.message)
  if (isConnectionError(error) || isTransientError(error)) {
    return new Refusal('database_unavailable', 'the database is away', {}, error)
  }
  return undefined
}
