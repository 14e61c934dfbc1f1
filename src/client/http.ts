import { errorOfAnswer, isOutage, isPassing, RunlaneError } from './errors.ts'
import { backOffMs, type Limit, limitOf, now, pause } from './time.ts'

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'
export type QueryValue = string | number | boolean | Date | readonly string[] | null | undefined

/** One request. */
export interface Ask {
  readonly method: Method
  /** Made by `route`, so that its parts are encoded. */
  readonly path: string
  /** What is null or undefined is left out. */
  readonly query?: Readonly<Record<string, QueryValue>>
  /** Sent as JSON. */
  readonly body?: unknown
  /** Makes a POST one that can be repeated. */
  readonly idempotencyKey?: string | undefined
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal | undefined
  /** How long the answer takes if all is well, in milliseconds, beyond the time that is granted to any answer. */
  readonly expectMs?: number | undefined
  /** Instead of the client's. */
  readonly retries?: number | undefined
  /** Goes on trying for so long, instead of so often. */
  readonly outageMs?: number | undefined
}

/** What `createClient` settled. */
export interface HttpOptions {
  readonly url: URL
  readonly token: string | (() => string | Promise<string>) | undefined
  readonly fetch: typeof fetch
  readonly retries: number
  readonly timeoutMs: number
}

const BACK_OFF_MS = 250
const BACK_OFF_MS_MAX = 5_000
/** Whoever is asked to stay away longer decides for himself. */
const RETRY_AFTER_MS_MAX = 60_000

/** Sends requests, again where that is safe, and makes errors of what is no success. */
export class Http {
  readonly options: HttpOptions

  constructor(options: HttpOptions) {
    this.options = options
  }

  /** @throws {RunlaneError} `unexpected_answer` where a success is not JSON; whatever the service refuses with. */
  async json<T>(ask: Ask): Promise<T> {
    const { status, text } = await this.#send(ask)
    try {
      return JSON.parse(text) as T
    } catch (cause) {
      const detail = `${this.options.url.origin} answered ${ask.method} ${ask.path} with something that is not JSON: is it a Runlane service?`
      throw new RunlaneError({ status, code: 'unexpected_answer', detail, cause })
    }
  }

  async text(ask: Ask): Promise<string> {
    return (await this.#send(ask)).text
  }

  /** A successful answer whose body is still to be read, for as long as `limit` lets it; asked for once. */
  async open(ask: Omit<Ask, 'signal'>, limit: Limit): Promise<Response> {
    const request = await this.#request(ask)
    try {
      limit.start(this.options.timeoutMs)
      const response = await this.#answer(request, limit.signal)
      if (!response.ok) throw errorOfAnswer(response, await response.text())
      limit.stop()
      return response
    } catch (error) {
      throw this.#told(error, ask, limit.expired)
    }
  }

  async #send(ask: Ask): Promise<{ status: number; text: string }> {
    const request = await this.#request(ask)
    const startedAt = now()
    for (let failures = 0; ; failures += 1) {
      try {
        return await this.#once(request, ask)
      } catch (error) {
        const isBorne = ask.outageMs === undefined ? isPassing : isOutage
        if (!isBorne(error) || !isRepeatable(ask)) throw error
        const backOff = backOffMs(failures, BACK_OFF_MS, BACK_OFF_MS_MAX)
        const waitMs = Math.max(backOff, error.retryAfterMs)
        const goesOn =
          ask.outageMs === undefined
            ? failures < (ask.retries ?? this.options.retries)
            : now() + waitMs - startedAt < ask.outageMs
        if (!goesOn || waitMs > RETRY_AFTER_MS_MAX) throw error
        await pause(waitMs, ask.signal)
      }
    }
  }

  async #once(request: Prepared, ask: Ask): Promise<{ status: number; text: string }> {
    const limit = limitOf(ask.signal)
    try {
      limit.start(this.options.timeoutMs + (ask.expectMs ?? 0))
      const response = await this.#answer(request, limit.signal)
      const text = await response.text()
      if (!response.ok) throw errorOfAnswer(response, text)
      return { status: response.status, text }
    } catch (error) {
      throw this.#told(error, ask, limit.expired)
    } finally {
      limit.end()
    }
  }

  /** All that may fail for a reason of ours happens here, before anything is sent. */
  async #request({ method, path, query = {}, body, idempotencyKey, headers }: Ask) {
    const { url, token } = this.options
    const target = new URL(`${url.href.replace(/\/$/, '')}${path}`)
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) target.searchParams.set(name, textOf(value))
    }
    const sent = new Headers({ accept: 'application/json', ...headers })
    if (body !== undefined) sent.set('content-type', 'application/json')
    if (idempotencyKey !== undefined && !/^[\x20-\x7e]{1,255}$/.test(idempotencyKey))
      throw new TypeError('idempotencyKey must have 1 to 255 printable ASCII characters')
    if (idempotencyKey !== undefined) sent.set('idempotency-key', idempotencyKey)
    const bearer = typeof token === 'function' ? await token() : token
    if (bearer !== undefined && !/^[\x21-\x7e]+$/.test(bearer))
      throw new TypeError('the token is empty or holds characters that no token has')
    if (bearer !== undefined) sent.set('authorization', `Bearer ${bearer}`)
    return { method, target, headers: sent, body: body === undefined ? null : JSON.stringify(body) }
  }

  #answer({ method, target, headers, body }: Prepared, signal: AbortSignal): Promise<Response> {
    // A redirect would take the request, or its repetition as a GET, to where nobody meant it to go.
    return this.options.fetch(target, { method, headers, body, signal, redirect: 'manual' })
  }

  #told(error: unknown, { signal, method, path, expectMs = 0 }: Ask, expired: boolean): unknown {
    if (signal?.aborted) return signal.reason
    if (error instanceof RunlaneError) return error
    const { origin } = this.options.url
    const reason = expired
      ? `no answer to ${method} ${path} within ${this.options.timeoutMs + expectMs} ms`
      : reasonOf(error)
    const detail = `${origin} cannot be reached: ${reason}`
    return new RunlaneError({ code: 'unreachable', detail, cause: error })
  }
}

interface Prepared {
  readonly method: Method
  readonly target: URL
  readonly headers: Headers
  readonly body: string | null
}

const isRepeatable = ({ method, idempotencyKey }: Ask): boolean =>
  method === 'GET' || idempotencyKey !== undefined

function textOf(value: NonNullable<QueryValue>): string {
  if (value instanceof Date) return value.toISOString()
  return typeof value === 'object' ? value.join(',') : String(value)
}

/** `fetch` says little itself; what happened is in its cause, for a name with several addresses one level deeper. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause: unknown = error.cause
  if (!(cause instanceof Error)) return error.message
  const code: unknown = Reflect.get(cause, 'code')
  return cause.message || (typeof code === 'string' ? code : error.message)
}

/**
 * A path whose variable parts are encoded: `` route`/runs/${runId}` ``.
 * @throws {TypeError} for a part that no encoding keeps in its place: '' and what a URL takes for a folder
 */
export function route(parts: TemplateStringsArray, ...values: readonly string[]): string {
  return parts.reduce((before, part, index) => {
    const value = values[index - 1] ?? ''
    if (value === '' || value === '.' || value === '..')
      throw new TypeError(`${JSON.stringify(value)} cannot be an id`)
    return `${before}${encodeURIComponent(value)}${part}`
  })
}

/** Random enough that no two requests ever share it; also where a page is not served securely. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
