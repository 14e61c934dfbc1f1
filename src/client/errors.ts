import type { FieldError, RefusalCode } from '../errors.ts'
import { retryAfterMs } from './time.ts'

/** Codes of what went wrong on this side of the connection, where no refusal of the service is at hand. */
export type ClientCode =
  | 'unreachable'
  | 'wait_timeout'
  | 'stream_reset'
  | 'unexpected_answer'
  | 'webhook_invalid'

/** What a `RunlaneError` is made of. */
export interface RunlaneErrorFacts {
  /** Of the HTTP answer; left out where there was none. */
  readonly status?: number | undefined
  readonly code: string
  readonly detail: string
  readonly errors?: readonly FieldError[] | undefined
  readonly requestId?: string | undefined
  readonly problem?: Readonly<Record<string, unknown>> | undefined
  readonly retryAfterMs?: number | undefined
  readonly cause?: unknown
}

/**
 * Everything that the client throws, but for two: a `TypeError` where it was called wrongly (nothing was sent then), and
 * the reason of an `AbortSignal` that the caller aborted.
 *
 * Decide on `code`. Most codes are the service's, as its contract lists them. The client's own are:
 *
 * - `unreachable`: no answer in spite of the retries. Whether the request was carried out is not known; with an
 *   `Idempotency-Key` it can be sent again.
 * - `wait_timeout`: the time of `wait` was up. The run goes on; `problem` says how it was seen last: `run_id`,
 *   `run_status`, `stuck_reason`.
 * - `stream_reset`: the cursor of an event stream is no good any more. See `EventsOptions.onReset`.
 * - `unexpected_answer`: it is not what the contract promises. Mostly the address is not a Runlane service, or
 *   something between answers in its place.
 * - `webhook_invalid`: not signed with a known secret, too old or too new, or not a CloudEvent.
 */
export class RunlaneError extends Error {
  override readonly name = 'RunlaneError'
  /** Of the HTTP answer; undefined where there was none. */
  readonly status: number | undefined
  readonly code: RefusalCode | ClientCode | (string & {})
  /** For people; never holds a token or a payload. `message` is the same. */
  readonly detail: string
  /** Fields that do not fit, each with its path in what was sent; empty where it is not about fields. */
  readonly errors: readonly FieldError[]
  /** Finds the request in the log of the service. */
  readonly requestId: string | undefined
  /** The whole problem document (RFC 9457), for members such as `resume_blocker`; empty where nothing more is known. */
  readonly problem: Readonly<Record<string, unknown>>
  /** How long the service asks to stay away (`Retry-After`), in milliseconds; 0 where it does not. */
  readonly retryAfterMs: number

  constructor(facts: RunlaneErrorFacts) {
    super(facts.detail, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.status = facts.status
    this.code = facts.code
    this.detail = facts.detail
    this.errors = facts.errors ?? []
    this.requestId = facts.requestId
    this.problem = facts.problem ?? {}
    this.retryAfterMs = facts.retryAfterMs ?? 0
  }
}

/** Answers that pass: too many requests, and a service, or a proxy before it, that is not there right now. */
const PASSING: ReadonlySet<number | undefined> = new Set([429, 502, 503, 504])

/** Whether the same request may succeed a moment later. */
export const isPassing = (error: unknown): error is RunlaneError =>
  error instanceof RunlaneError && (error.code === 'unreachable' || PASSING.has(error.status))

/** The same for what goes on for minutes anyway: there a fault of the service is borne too. */
export const isOutage = (error: unknown): error is RunlaneError =>
  isPassing(error) || (error instanceof RunlaneError && (error.status ?? 0) >= 500)

/** What an answer that is no success says. */
export function errorOfAnswer(
  { status, statusText, headers }: Response,
  text: string,
): RunlaneError {
  const problem = problemOf(text) ?? {}
  const { code = 'unexpected_answer', detail, title, errors } = problem
  const plain = `it answered ${`${status} ${statusText}`.trim()}`
  return new RunlaneError({
    status,
    code: String(code),
    detail: [detail, title].find((one) => typeof one === 'string') ?? plain,
    errors: Array.isArray(errors) ? errors.filter(isFieldError) : [],
    requestId: headers.get('x-request-id') ?? undefined,
    problem,
    retryAfterMs: retryAfterMs(headers.get('retry-after')),
  })
}

function problemOf(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
    return isObject ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

const isFieldError = (value: unknown): value is FieldError =>
  typeof value === 'object' &&
  value !== null &&
  typeof Reflect.get(value, 'path') === 'string' &&
  typeof Reflect.get(value, 'message') === 'string'
