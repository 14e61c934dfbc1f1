import type { EventsOptions, EventStream } from './events.ts'
import type { Method, QueryValue } from './http.ts'
import type {
  AuditFilter,
  BulkFilter,
  BulkOptions,
  CallOptions,
  CommandOptions,
  KeyedOptions,
  ListOptions,
  PlainCommandOptions,
  RunEventsFilter,
  RunFilter,
  WaitOptions,
} from './options.ts'
import type { Listing } from './pages.ts'
import type * as t from './types.ts'

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
   * Sends a signal to the code of a run, for one `ctx.signalNamed(name)`; kept until that asks for it.
   * @throws {RunlaneError} `not_active` (it is over), `too_many_signals` (1,000 unread), `validation_error`.
   */
  signal(
    runId: string,
    name: string,
    data?: unknown,
    options?: Omit<CommandOptions, 'reason'>,
  ): Promise<t.Commanded>
  /**
   * Answers the question that a run waits on.
   * @param options `tokenId`: which, where it asks several.
   * @throws {RunlaneError} `not_waiting`, `waits_for_signal`, `ambiguous_answer` (`problem.questions`), `validation_error`.
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
   * each, and `next_cursor` goes on. A dry run unless `dryRun` is false. A service has the runs that it created.
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
  interruptSubagent(runId: string, options?: CommandOptions): Promise<t.Commanded>
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
  deleteAgent(name: string, options?: PlainCommandOptions): Promise<void>
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
  revokeToken(id: string, options?: PlainCommandOptions): Promise<void>
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
