import type { EventsOptions, EventStream } from './events.ts'
import type { Method, QueryValue } from './http.ts'
import type { Listing } from './pages.ts'
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

/**
 * A client of one service. Its methods are the operations of the HTTP contract under the same names (`/docs`), and
 * `wait` and `events`. It holds nothing open but what is under way, so there is nothing to close.
 *
 * Every method rejects with a `RunlaneError`. `unauthorized`, `forbidden`, `not_found`, `rate_limited`, `draining` and
 * `unreachable` may come from any; what else may is said with the method. Waits and lists are as of their moment.
 */
export interface Client {
  /**
   * Posts a run. When it resolves the run is durable: it will be carried out even if every process dies now.
   * @throws {RunlaneError} `validation_error`, `unknown_agent`, `unknown_queue` (`errors` names the fields), `lane_busy`,
   *   `idempotency_conflict` (the key came with another body before), `body_too_large`.
   */
  postRun(draft: t.RunDraft, options?: KeyedOptions): Promise<t.Run>
  /** Posts up to 1,000 runs, all or none; answered in the same order. @throws {RunlaneError} as `postRun` */
  postRuns(drafts: readonly t.RunDraft[], options?: KeyedOptions): Promise<t.RunSummary[]>
  /** @throws {RunlaneError} `not_found` */
  getRun(runId: string, options?: CallOptions): Promise<t.Run>
  /**
   * The run, once it is terminal: `completed`, `failed`, `cancelled` or `timed_out`. Asks again and again by long polls,
   * through restarts of the service. A run that waits for a human is not terminal: it is waited for.
   * @throws {RunlaneError} `wait_timeout`, `unreachable` after `outageMs`, `not_found`.
   */
  wait(runId: string, options?: WaitOptions): Promise<t.Run>
  /** Newest first. */
  listRuns(filter?: RunFilter): Listing<t.RunSummary, t.RunPage>
  /** The committed events of a run up to now, oldest first. `events` goes on when these are at their end. */
  listRunEvents(runId: string, filter?: RunEventsFilter): Listing<t.RunEvent, t.EventPage>
  listCheckpoints(runId: string, options?: ListOptions): Listing<t.Checkpoint, t.CheckpointPage>
  listToolResults(runId: string, options?: ListOptions): Listing<t.ToolResult, t.ToolResultPage>
  listChildren(runId: string, options?: ListOptions): Listing<t.RunSummary, t.ChildPage>
  listAttempts(runId: string, options?: ListOptions): Listing<t.Attempt, t.AttemptPage>
  getJournal(runId: string, options?: CallOptions): Promise<t.Journal>
  /** Why the run is where it is: what it waits for, since when, and what would unblock it. For operators. */
  getDiagnosis(runId: string, options?: CallOptions): Promise<t.Diagnosis>
  previewResume(runId: string, options?: CallOptions): Promise<t.ResumePreview>
  /** @param options `at`: a sequence of the run, for where it was then. */
  getStatechart(
    runId: string,
    options?: CallOptions & { readonly at?: number | undefined },
  ): Promise<t.Statechart>

  /** Asks a run to end at its next safe boundary. @throws {RunlaneError} `not_cancellable` */
  cancelRun(runId: string, options?: CommandOptions): Promise<t.Commanded>
  /**
   * Answers the question that a run waits on.
   * @param options `tokenId`: which, where it asks several.
   * @throws {RunlaneError} `not_waiting`, `ambiguous_answer` (`problem.questions`), `validation_error`.
   */
  respond(
    runId: string,
    answer: unknown,
    options?: Omit<CommandOptions, 'reason'> & { readonly tokenId?: string | undefined },
  ): Promise<t.Commanded>
  /**
   * Puts a failed or timed-out run back in line, to go on from its records: no recorded call is made again.
   * @param options `resolutions`: what became of calls of unknown outcome, by `tool_call_id`.
   * @throws {RunlaneError} `not_resumable`, `unknown_tool_call` (`problem.resume_blocker` says why or which),
   *   `validation_error`.
   */
  resumeRun(
    runId: string,
    options?: CommandOptions & {
      readonly resolutions?: Readonly<Record<string, t.Resolution>> | undefined
    },
  ): Promise<t.Commanded>

  /**
   * Makes a new run from a checkpoint of this one (`listCheckpoints`), in a lane of its own: what was recorded up to there is
   * replayed, later calls are made anew. The run that it comes from stays as it is. For operators.
   * @param options `input`: instead of its own, where the recorded calls fit it as well.
   * @throws {RunlaneError} `not_found`, `unknown_tool_call` (`problem.unknown_calls`), `not_forkable`, `unknown_agent`,
   *   `validation_error`, `idempotency_conflict`.
   */
  forkRun(
    runId: string,
    checkpointId: string,
    options?: PlainCommandOptions & { readonly input?: unknown },
  ): Promise<t.Run>
  /**
   * Gives the turns of an active run more time than the watchdog would.
   * @param byMs in milliseconds, at most 24 days.
   * @throws {RunlaneError} `not_active`
   */
  extendRun(runId: string, byMs: number, options?: PlainCommandOptions): Promise<t.Commanded>
  /**
   * Cancels, recycles (for admins) or resumes the runs that fit a filter, up to 1,000 in a call: `results` has what became of
   * each, and `next_cursor` goes on. A dry run unless `dryRun` is false.
   * @throws {RunlaneError} `validation_error`, `idempotency_conflict`.
   */
  bulkRuns(
    action: 'cancel' | 'recycle' | 'resume',
    filter: BulkFilter,
    options: BulkOptions,
  ): Promise<t.Bulk>
  /**
   * Asks a run to end after its current step. For admins, as all that follows up to `sweep`.
   * @param target a run by its id, or a conversation: its active run, else its newest unfinished one.
   * @throws {RunlaneError} `not_cancellable`, `ambiguous_target` (`problem.run_ids`).
   */
  stopRun(target: string, options?: CommandOptions): Promise<t.Commanded>
  /**
   * Ends a stuck run by force: its executor is killed, its lane freed, it has `failed`.
   * @param options `force`: an active run that is not stuck as well.
   * @throws {RunlaneError} `not_stuck`, `ambiguous_target` (`problem.run_ids`).
   */
  recycleRun(
    target: string,
    options?: CommandOptions & { readonly force?: boolean | undefined },
  ): Promise<t.Commanded>
  /**
   * Cancels a child run alone; its parent is told, and goes on as its code decides.
   * @throws {RunlaneError} `not_a_subagent`, `not_cancellable`.
   */
  interruptSubagent(runId: string, options?: PlainCommandOptions): Promise<t.Commanded>
  /** Recycles every stuck run, and answers which. */
  sweep(options?: PlainCommandOptions): Promise<t.Sweep>
  /**
   * All unfinished runs of all nodes in one consistent read, stuck ones first; `cursor` is where `events` goes on.
   * @param options `limit`: rows at most, 1 to 5,000, which is the default; the counts are always whole.
   */
  getSnapshot(options?: CallOptions & { readonly limit?: number | undefined }): Promise<t.Snapshot>

  /**
   * Live events, from the first one on or after a cursor, for as long as you iterate. Lost connections, restarts and
   * silence are survived: it comes back with the last id, after a jittered back-off or as the service asks, and yields
   * each event once and in order. Nothing is asked for before the first `next()`.
   *
   * The stream of one run ends with the run, those of a conversation and of everything do not.
   *
   * @throws {RunlaneError} while it is iterated: `stream_reset` (see `EventsOptions.onReset`), `unreachable` after
   *   `outageMs`, and what is refused for good, such as `not_found` or `unauthorized`.
   */
  events(options?: EventsOptions): EventStream

  /** Of the active run of a conversation, else the newest unfinished, else the newest. @throws {RunlaneError} `not_found` */
  getAgentStatus(conversationId: string, options?: CallOptions): Promise<t.AgentStatus>
  /** Asks the run that `getAgentStatus` is about to end. @throws {RunlaneError} `not_cancellable` */
  cancelAgentRun(
    conversationId: string,
    options?: KeyedOptions & { readonly reason?: string | undefined },
  ): Promise<t.AgentStatus>

  listAgents(options?: CallOptions): Promise<t.AgentPage>
  getAgent(name: string, options?: CallOptions): Promise<t.Agent>
  /** Declares an agent as JSON, or replaces the declared one of that name. @throws {RunlaneError} `agent_exists` */
  declareAgent(agent: t.DeclaredAgent, options?: KeyedOptions): Promise<t.Agent>
  /** Unfinished runs of it will fail with `unknown_agent`. @throws {RunlaneError} `not_found`, `agent_exists` */
  deleteAgent(name: string, options?: CallOptions): Promise<void>
  listMachines(options?: CallOptions): Promise<t.MachinePage>
  getMachine(id: string, options?: CallOptions): Promise<t.Machine>
  /** Its diagram as text: `svg`, or `mmd` for Mermaid. */
  getMachineDiagram(id: string, kind: 'svg' | 'mmd', options?: CallOptions): Promise<string>

  /**
   * The one time that the secret is shown. Under a key of yours (there is none by default) it can be asked for again: what
   * comes then has no `token`, and if you have lost it, revoke this one and make another.
   * @throws {RunlaneError} `token_exists`, `validation_error`, `idempotency_conflict`
   */
  createToken(token: { name: string; role: t.Role }, options?: KeyedOptions): Promise<t.NewApiToken>
  listTokens(options?: CallOptions): Promise<t.TokenPage>
  /** Its sessions and streams end within five seconds. @throws {RunlaneError} `not_found` */
  revokeToken(id: string, options?: CallOptions): Promise<void>
  /** Who did what, newest first. */
  listAudit(filter?: AuditFilter): Listing<t.AuditRow, t.AuditPage>
  listNodes(options?: CallOptions): Promise<t.NodePage>
  whoAmI(options?: CallOptions): Promise<t.Identity>
  /** That the process answers, and its version. */
  healthz(options?: CallOptions): Promise<t.Health>
  /** Whether the node is fit to serve: resolves with `not_ready` too, where the service itself says so. */
  readyz(options?: CallOptions): Promise<t.Readiness>

  /**
   * Any other operation of the contract; `T` is what it answers, unchecked.
   * @param path encoded, with a slash at its beginning.
   */
  request<T = unknown>(
    method: Method,
    path: string,
    options?: KeyedOptions & {
      readonly query?: Readonly<Record<string, QueryValue>>
      readonly body?: unknown
    },
  ): Promise<T>
}
