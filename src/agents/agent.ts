import type { Json } from '../json.ts'
import type { Effects } from '../store/rows.ts'

/** What a tool gets beside its input. */
export interface ToolScope {
  /** Aborted when the call must end: a hard stop, or, for `effects: 'none'`, a cancel. */
  signal: AbortSignal
  /** The same for every invocation of this call, on whatever node: send it along wherever the other side can use it. */
  idempotencyKey: string
  toolCallId: string
}

/** Something outside that an agent can call. */
export interface Tool<Input = Json> {
  description?: string
  /**
   * What repeating the call does: `none` changes nothing outside, `idempotent` is safe under the same key, `unsafe` is
   * never repeated without a human's word. Default `unsafe`. A function decides by the input.
   */
  effects?: Effects | ((input: Input) => Effects)
  execute(input: Input, scope: ToolScope): unknown
}

/** An agent that is code: `run` is called once per attempt, and what it asks of `ctx` is recorded once per run. */
export interface Agent {
  name: string
  /** The tools by name; a function finds them when their names are not known beforehand. */
  tools?: Record<string, Tool<never>> | ((name: string) => Tool<never> | undefined)
  /** Checks an input when a run is posted; answers what does not fit. */
  validate?(input: unknown): { path: string; message: string }[]
  /** True when this input needs a thread of its own, because its code may block the event loop. */
  needsThread?(input: Json): boolean
  run(ctx: AgentContext): Promise<unknown>
}

export interface StepScope {
  signal: AbortSignal
  idempotencyKey: string
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
  tool(name: string, input?: Json, options?: { callId?: string }): Promise<Json>
  /** Streams text to the readers of the run, whole or in `chunks` over `ms` milliseconds. */
  say(text: string, options?: { chunks?: number; ms?: number }): Promise<void>
  /** Merges these fields into the journal of the conversation. */
  journal(fields: Record<string, Json>): Promise<void>
  /** Tells that the code is alive; not recorded. */
  heartbeat(): void
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

/** Fails the run with a code of its own. */
export class RunError extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.name = 'RunError'
    this.code = code
  }
}
