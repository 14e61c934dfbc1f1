/** What the methods of a client take beside what they are about. */
import type * as t from './types.ts'

/** What `createClient` takes. */
export interface ClientOptions {
  /** Address of the service, with the path that it has behind a proxy, if any: `http://127.0.0.1:7420`. */
  readonly url: string | URL
  /**
   * An API token or a JWT. A function is asked before every request and reconnect, so that one that expires can be
   * replaced. Without one the service answers only what needs no authentication.
   */
  readonly token?: string | (() => string | Promise<string>) | undefined
  /** Instead of the platform's: for proxies, certificates, tracing. Must reject when its signal aborts. */
  readonly fetch?: typeof globalThis.fetch | undefined
  /**
   * How often a request is made again that failed in passing: the connection, or 429, 502, 503, 504. Default 4, which
   * with the back-off (250 ms doubling up to 5 s, `Retry-After` if that is longer) takes two to four seconds. Only requests
   * that can be repeated are: GET, and whatever carries an `Idempotency-Key`.
   */
  readonly retries?: number | undefined
  /** How long one answer may take, in milliseconds, beyond what a `wait` asks for. Default 30,000. */
  readonly timeoutMs?: number | undefined
  /**
   * How long `wait` and event streams go on without the service, or with one that fails (any 5xx), in milliseconds, before
   * they throw: `unreachable`, or what it answered last.
   * Default 300,000; `Infinity`: for ever.
   */
  readonly outageMs?: number | undefined
}

/** What every request takes. */
export interface CallOptions {
  /** Gives up; the promise rejects with its reason. What was sent may still be carried out. */
  readonly signal?: AbortSignal | undefined
}

/** What requests take that must not be carried out twice. */
export interface KeyedOptions extends CallOptions {
  /**
   * Under this key the service carries the request out once, however often it comes; 1 to 255 characters, yours alone.
   * Default: a random one for each call, so that its own retries are safe. Give one of yours (an order number) where
   * your process may die and ask again: the answer is then the same run.
   */
  readonly idempotencyKey?: string | undefined
}

/** What commands to runs take. */
export interface CommandOptions extends KeyedOptions {
  /** For the audit trail and the run's events; at most 1,000 characters. */
  readonly reason?: string | undefined
  /**
   * Answer when the run is terminal, or after this many milliseconds, at most 300,000: `run` then says which.
   * Default: as soon as the command is written.
   */
  readonly waitMs?: number | undefined
}

/** The same for those that are done at once, so that there is nothing to wait for. */
export type PlainCommandOptions = Omit<CommandOptions, 'waitMs'>

export interface WaitOptions extends CallOptions {
  /** In milliseconds. Default: as long as it takes. */
  readonly timeoutMs?: number | undefined
}

export interface ListOptions extends CallOptions {
  /** Rows in one request, 1 to 1,000. Default 100. */
  readonly pageSize?: number | undefined
}

/** Which runs; what is left out filters nothing. */
export interface RunFilter extends ListOptions {
  readonly status?: t.RunStatus | readonly t.RunStatus[] | undefined
  readonly agent?: string | undefined
  readonly conversationId?: string | undefined
  readonly queue?: string | undefined
  readonly laneKey?: string | undefined
  readonly stuck?: boolean | undefined
  readonly orphan?: boolean | undefined
  /** Text to look for. */
  readonly q?: string | undefined
  /** Created at this time or later. */
  readonly since?: Date | string | undefined
}

/** Which runs a bulk action is about; all that are given must fit, and at least one must be. */
export interface BulkFilter extends Omit<RunFilter, keyof ListOptions> {
  /** 1 to 1,000: each of them is answered for, whatever can be done to it. */
  readonly runIds?: readonly string[] | undefined
}

export interface BulkOptions extends KeyedOptions {
  /** For the audit trail and the events of the runs; at most 1,000 characters. */
  readonly reason: string
  /** Default true: says what would be done, and does nothing. */
  readonly dryRun?: boolean | undefined
  /** `next_cursor` of the call before, to go on from there. */
  readonly cursor?: string | undefined
}

export interface RunEventsFilter extends ListOptions {
  readonly afterSequence?: number | undefined
  readonly visibility?: t.Visibility | undefined
}

export interface AuditFilter extends ListOptions {
  readonly action?: string | undefined
  readonly actor?: string | undefined
  readonly since?: Date | string | undefined
}
