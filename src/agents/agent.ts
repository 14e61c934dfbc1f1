import type { LanguageModel, ModelMessage } from 'ai'
import type { Json } from '../json.ts'
import type { Effects } from '../store/rows.ts'
import type { ChildReport } from './port.ts'

/** A JSON Schema, as models see it. */
export type JsonSchema = { [key: string]: Json }

/** What a tool gets beside its input. */
export interface ToolScope {
  /** Aborted when the call must end: its time-out, a hard stop, or, for `effects: 'none'`, a cancel. */
  signal: AbortSignal
  /** The same for every invocation of this call, on whatever node: send it along wherever the other side can use it. */
  idempotencyKey: string
  toolCallId: string
  /** Tells how far the call is: shown as the phase of the run, at most once a second. */
  progress: (note: string) => void
}

/** Something outside that an agent can call. */
export interface Tool<Input = Json> {
  description?: string
  /** What a model has to give; a tool without it takes an object of anything. */
  input_schema?: JsonSchema
  /**
   * What repeating the call does: `none` changes nothing outside, `idempotent` is safe under the same key, `unsafe` is
   * never repeated without a human's word. Default `unsafe`. A function decides by the input.
   */
  effects?: Effects | ((input: Input) => Effects)
  /** Milliseconds after which the call is aborted and has failed; default: none. */
  timeout_ms?: number
  /** The same for silence: each progress report starts it anew. It is kept by `execute` itself. */
  silence_ms?: number
  execute(input: Input, scope: ToolScope): unknown
}

/** A server that speaks the Model Context Protocol: its tools are the agent's. */
export interface McpServer {
  /** Streamable HTTP. Either this or `command`. */
  url?: string
  headers?: Record<string, string>
  /** A program that speaks over its standard input and output. */
  command?: string
  args?: string[]
  /** Added to a minimal environment (PATH, HOME and the like). */
  env?: Record<string, string>
  /** Put before the names of its tools with an underscore, where two servers name a tool alike. */
  prefix?: string
  /** Silence after which a call has failed: each progress report starts it anew. Default 5m. */
  timeout?: string
}

/** `provider:model` (`openai:gpt-5.2`), or a model object of the AI SDK. */
export type ModelChoice = string | Exclude<LanguageModel, string>

/** Clocks of the watchdog for the runs of an agent, such as `"30s"`. */
export interface Timeouts {
  reasoning?: string
  tool?: string
  turn?: string
}

/** What the runtime runs: `run` is called once per attempt, and what it asks of `ctx` is recorded once per run. */
export interface Agent {
  name: string
  description?: string
  /** The system prompt of its model calls. */
  instructions?: string
  /** The first one is called. */
  models?: readonly ModelChoice[]
  /** The tools by name; a function finds them when their names are not known beforehand. */
  tools?: Record<string, Tool<never>> | ((name: string) => Tool<never> | undefined)
  mcp?: readonly McpServer[]
  run(ctx: AgentContext): Promise<unknown>
}

/** A tool as a model is told of it. */
export interface ToolOffer {
  name: string
  description: string
  input_schema: JsonSchema
}

export interface ModelRequest {
  /** The conversation so far, in the message format of the AI SDK. */
  messages: ModelMessage[]
  /** Default: the agent's. */
  instructions?: string
  /** What the model may ask for: tools of the agent by name (`*`: all of them), offers of your own. Default: none. */
  tools?: (string | ToolOffer)[]
  /** Work that readers of the run should not see: its text is neither streamed nor told as a message. Default false. */
  quiet?: boolean
}

/** A tool that the model wants to be called; nothing has called it yet. */
export interface ModelToolCall {
  /** Unique within the messages, whatever the provider said. */
  id: string
  /** The provider's id; some servers use `call_0` again and again. */
  provider_id: string
  name: string
  input: Json
  /** Why the input is not to be used: the model wrote something that is not JSON. */
  invalid?: string
}

export interface ModelReply {
  text: string
  tool_calls: ModelToolCall[]
  /** `stop`, `length`, `content-filter`, `tool-calls`, `error`, `other`. */
  finish_reason: string
  /** The model that answered, as `provider:model`. */
  model: string
  usage: { input_tokens: number; output_tokens: number }
  /** What to append to the messages. */
  messages: ModelMessage[]
  /** Asked for with `quiet`. */
  quiet?: true
}

export interface StepScope {
  signal: AbortSignal
  idempotencyKey: string
}

export interface ToolCallOptions {
  /** An id of your own instead of the automatic one; unique within the run. */
  callId?: string
  /** The id that the model's provider gave the call: recorded beside ours. */
  providerCallId?: string
}

export interface DelegateOptions {
  /**
   * Delegations of one agent under one name stand in line, one at a time per conversation. Default: each has a lane of
   * its own.
   */
  namespace?: string
  /** Do not wait for it: it reports to nobody, and a cancel of this run does not reach it. Default false. */
  detach?: boolean
  /**
   * Limits of the watchdog's clocks for it, such as `{ tool: '10m' }`. Default, each by itself: what this run was given
   * by whoever posted it, else what its agent says.
   */
  timeouts?: Timeouts
}

/**
 * What an agent's code can ask of its run. Each call is recorded in the idempotency envelope under its position: when
 * the run is resumed, `run` starts again and recorded calls answer from the envelope without being made. So between
 * these calls the code has to be deterministic.
 */
export interface AgentContext {
  readonly runId: string
  readonly conversationId: string
  readonly input: Json
  readonly attempt: number
  /** Aborted by a cancel, a hand-over or a hard stop: end what you are waiting for. */
  readonly signal: AbortSignal
  /**
   * Runs `work` and records its result. Dying before the result is recorded means that `work` runs again, with the same
   * key; afterwards never. The record may still be on its way when this resolves; the next effect waits for it.
   */
  step<T>(name: string, work: (scope: StepScope) => Promise<T> | T): Promise<T>
  /**
   * Calls a tool. Recorded as started before it is invoked and as finished after. Dying in between leaves an unknown
   * outcome: `none` and `idempotent` calls are made again, for an `unsafe` one a human is asked.
   * @throws ToolError when the tool failed
   */
  tool(name: string, input?: Json, options?: ToolCallOptions): Promise<Json>
  /**
   * Calls the agent's model and streams its text to the readers of the run. The answer is recorded whole; dying before
   * that means that the model is called again, and the stream goes on from where the new answer differs.
   * @throws RunError with the kind of failure as its code (`rate_limit`, `auth_error`, `context_length`, …)
   */
  model(request: ModelRequest): Promise<ModelReply>
  /** Streams text to the readers of the run, whole or in `chunks` over `ms` milliseconds. */
  say(text: string, options?: { chunks?: number; ms?: number }): Promise<void>
  /**
   * Delegates work to another agent: a child run, which goes on whatever becomes of this attempt. Resolves with its report
   * when it has `completed` or `failed` (at once and `detached` with `detach`). The child is cancelled when this run is, or
   * when `run` ends without waiting for it.
   * @throws DelegationCancelled when somebody has cancelled the child alone
   * @throws RunError `lane_cycle`, `delegation_too_deep` (12), `too_many_children` (1,000)
   */
  delegate(agent: string, input?: Json, options?: DelegateOptions): Promise<ChildReport>
  /**
   * Waits for the next signal of this name (`POST /runs/{run_id}/signal`) and resolves with its data; one that came before
   * is there at once. Signals of a name are read in the order in which they came, each by one call, once: whatever
   * crashes, what was not read is kept. While a run waits for signals and nothing else it is parked: its lane is free, and
   * when one comes `run` starts again. So half a second after the last call other waits of the code count as nothing: make
   * them in a `step`. There is no time-out yet.
   * @param name 1 to 64 letters, digits, `_` `.` `:` or `-`
   * @throws RunError `invalid_signal_name`, `too_many_signal_waits` (100 at once)
   */
  signalNamed(name: string): Promise<Json>
  /** Merges these fields into the journal of the conversation. */
  journal(fields: Record<string, Json>): Promise<void>
  /** Tells that the code is alive; not recorded. */
  heartbeat(): void
  /**
   * A boundary between pieces of work that call nothing of `ctx`: to come here is progress, here a cancel or a hand-over
   * ends the attempt, and a run whose turn took too long is held until somebody extends it. Not recorded.
   */
  boundary(): Promise<void>
  /** Milliseconds since 1970, a number in [0, 1), a random UUID: recorded, so that a resumed run sees the same. */
  now(): number
  random(): number
  uuid(): string
}

/** A tool call that failed; the agent may catch it and go on. */
export class ToolError extends Error {
  readonly code = 'tool_failed'
  readonly tool: string

  constructor(tool: string, message: string) {
    super(message)
    this.name = 'ToolError'
    this.tool = tool
  }
}

/** A delegated run was cancelled, and not because of this one: catch it to go on without. */
export class DelegationCancelled extends Error {
  readonly code = 'delegation_cancelled'
  readonly report: ChildReport

  constructor(report: ChildReport) {
    super(report.error_message ?? `the delegated run ${report.child_run_id} was cancelled`)
    this.name = 'DelegationCancelled'
    this.report = report
  }
}

/** Fails the run with a code of its own. */
export class RunError extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.name = 'RunError'
    this.code = code
  }
}
