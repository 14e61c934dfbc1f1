import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { clip } from '../clip.ts'
import { messageOf, SessionClosed } from '../errors.ts'
import { hashJson, type Json } from '../json.ts'
import type { CallKind, CallRow, Effects } from '../store/rows.ts'
import {
  type Agent,
  type AgentContext,
  RunError,
  type StepScope,
  type Tool,
  ToolError,
} from './agent.ts'
import { type OpenCall, started } from './calls.ts'
import type { SessionControl } from './control.ts'
import { type Job, SAYING_LENGTH_MAX, type SessionCall, type SessionPort } from './port.ts'
import { Replay } from './replay.ts'
import { saidBefore, splitText } from './speech.ts'
import { checkedResult } from './values.ts'

/** The `ctx` of one attempt: answers recorded calls from the envelope, makes the others and reports them. */
export class RunContext implements AgentContext {
  readonly runId: string
  readonly conversationId: string
  readonly input: Json
  readonly attempt: number
  readonly signal: AbortSignal
  #agent: Agent
  #port: SessionPort
  #control: SessionControl
  #replay: Replay
  #position = 0
  #callIds = new Set<string>()
  #inFlight = new Set<Promise<unknown>>()
  /** Failed steps that the code may yet go on from; one that ends the run is left open, for a resume to make it again. */
  #failedSteps: SessionCall[] = []

  constructor(agent: Agent, job: Job, port: SessionPort, control: SessionControl) {
    this.runId = job.run_id
    this.conversationId = job.conversation_id
    this.input = job.input
    this.attempt = job.attempt
    this.signal = AbortSignal.any([
      control.soft.signal,
      control.drained.signal,
      control.hard.signal,
    ])
    this.#agent = agent
    this.#port = port
    this.#control = control
    this.#replay = new Replay(job.calls)
  }

  async step<T>(name: string, work: (scope: StepScope) => Promise<T> | T): Promise<T> {
    const { call, recorded } = this.#open('step', name, null, null)
    if (recorded) return this.#replayed(recorded) as Promise<T>
    return this.#track(async () => {
      await this.#mayAct()
      const startedAt = performance.now()
      try {
        const scope = { signal: this.signal, idempotencyKey: this.#key(call) }
        const { value, size } = checkedResult(await work(scope))
        this.#port.send({
          type: 'call.recorded',
          call: this.#succeeded(call, value, size, startedAt),
        })
        return value as T
      } catch (error) {
        if (!this.#control.ending)
          this.#failedSteps.push(this.#failed(call, messageOf(error), startedAt))
        throw error
      }
    })
  }

  async tool(name: string, input: Json = null, options: { callId?: string } = {}): Promise<Json> {
    const tool = this.#findTool(name)
    const effects =
      typeof tool.effects === 'function' ? tool.effects(input as never) : (tool.effects ?? 'unsafe')
    const { call, recorded } = this.#open('tool', name, hashJson(input), effects, options.callId)
    if (recorded && recorded.outcome !== 'started') return this.#replayed(recorded)
    return this.#track(() => this.#invoke(tool, input, call, effects))
  }

  async say(text: string, options: { chunks?: number; ms?: number } = {}): Promise<void> {
    const { call, recorded } = this.#open('say', 'say', hashJson(text), null)
    if (recorded && recorded.outcome !== 'started') {
      await this.#replayed(recorded)
      return
    }
    const chunks = splitText(text, options.chunks ?? 1)
    const pause = (options.ms ?? 0) / chunks.length
    const startedAt = performance.now()
    // What was streamed before a crash is with the readers already: go on behind it.
    for (let said = saidBefore(recorded); said < chunks.length; said += 1) {
      this.#boundary()
      const partial = {
        ...call,
        settled: null,
        outcome: 'started',
        result: { said: said + 1 },
      } as const
      this.#port.send({
        type: 'progress.reported',
        saying: clip(text, SAYING_LENGTH_MAX),
        delta: {
          text: chunks[said] ?? '',
          call: { ...partial, error_message: null, duration_ms: null, size: 16 },
        },
      })
      if (pause > 0) await delay(pause, undefined, { signal: this.signal })
    }
    this.#boundary()
    this.#port.send({
      type: 'call.recorded',
      call: this.#succeeded(call, text, text.length, startedAt),
    })
  }

  async journal(fields: Record<string, Json>): Promise<void> {
    const { call, recorded } = this.#open('journal', 'journal', hashJson(fields), null)
    if (recorded) {
      await this.#replayed(recorded)
      return
    }
    this.#boundary()
    const { value, size } = checkedResult(fields)
    this.#port.send({
      type: 'call.recorded',
      call: this.#succeeded(call, value, size, performance.now()),
    })
  }

  heartbeat(): void {
    this.#port.beat()
  }

  now = (): number => this.#value('now', Date.now)
  random = (): number => this.#value('random', Math.random)
  uuid = (): string => this.#value('uuid', randomUUID)

  /** The code went on from its failed steps: they are part of the way that a replay has to take. */
  settleFailures(): void {
    for (const call of this.#failedSteps.splice(0)) this.#port.send({ type: 'call.recorded', call })
  }

  /** Resolves when no call is in flight: an attempt ends only then, so that each call's outcome is recorded. */
  async quiet(): Promise<void> {
    while (this.#inFlight.size > 0 && !this.#control.hard.signal.aborted) {
      await Promise.race([Promise.allSettled(this.#inFlight), aborted(this.#control.hard.signal)])
    }
  }

  async #invoke(tool: Tool<never>, input: Json, call: OpenCall, effects: Effects): Promise<Json> {
    await this.#mayAct()
    if (!(await this.#port.begin(started(call))))
      throw new SessionClosed('the run takes no new calls')
    const startedAt = performance.now()
    const signal = this.#toolSignal(effects)
    const { soft, drained, hard } = this.#control
    let made = false
    try {
      // A cancel that came while the start was committed: recorded as not made. A drain lets a started call go on.
      soft.signal.throwIfAborted()
      hard.signal.throwIfAborted()
      made = true
      const scope = { signal, idempotencyKey: this.#key(call), toolCallId: call.tool_call_id }
      const { value, size } = checkedResult(await tool.execute(input as never, scope))
      this.#port.send({
        type: 'tool.finished',
        call: this.#succeeded(call, value, size, startedAt),
      })
      return value
    } catch (error) {
      // Left as started: the call is made again where the run goes on, or a human is asked about it.
      if (hard.signal.aborted || (drained.signal.aborted && signal.aborted)) throw error
      const message = signal.aborted || !made ? 'aborted by a cancel' : messageOf(error)
      this.#port.send({ type: 'tool.finished', call: this.#failed(call, message, startedAt) })
      throw new ToolError(call.tool, message)
    }
  }

  /** Which ends abort a call: only such that leave nothing half-done outside, and always a hard stop. */
  #toolSignal(effects: Effects): AbortSignal {
    const { drained, hard } = this.#control
    if (effects === 'none') return this.signal
    if (effects === 'idempotent') return AbortSignal.any([drained.signal, hard.signal])
    return hard.signal
  }

  #open(
    kind: CallKind,
    name: string,
    args_hash: string | null,
    effects: Effects | null,
    callId?: string,
  ) {
    this.#boundary()
    this.settleFailures()
    this.#position += 1
    const position = this.#position
    const tool_call_id = callId ?? `${kind}_${position}`
    if (this.#callIds.has(tool_call_id)) {
      throw new RunError(
        'duplicate_tool_call_id',
        `the tool call id ${tool_call_id} was used twice`,
      )
    }
    this.#callIds.add(tool_call_id)
    const call: OpenCall = { tool_call_id, position, kind, tool: name, args_hash, effects }
    return { call, recorded: this.#replay.find(call) }
  }

  async #replayed(recorded: CallRow): Promise<Json> {
    await this.#replay.turnOf(recorded)
    if (recorded.outcome === 'failed')
      throw new ToolError(recorded.tool, recorded.error_message ?? 'the call failed')
    return recorded.result
  }

  #value<T extends number | string>(name: string, make: () => T): T {
    const { call, recorded } = this.#open('value', name, null, null)
    if (recorded) return recorded.result as T
    const value = make()
    this.#port.send({
      type: 'call.recorded',
      call: this.#succeeded(call, value, 32, performance.now()),
    })
    return value
  }

  /** An effect starts only when all that led to it is committed, the lease is held, and nobody has asked to end. */
  async #mayAct(): Promise<void> {
    await this.#port.barrier()
    this.#boundary()
  }

  #boundary(): void {
    if (this.#control.ending) throw new SessionClosed('the session is ending')
  }

  async #track<T>(work: () => Promise<T>): Promise<T> {
    const running = work()
    this.#inFlight.add(running)
    try {
      return await running
    } finally {
      this.#inFlight.delete(running)
    }
  }

  #findTool(name: string): Tool<never> {
    const { tools } = this.#agent
    const tool = typeof tools === 'function' ? tools(name) : tools?.[name]
    if (!tool)
      throw new RunError('unknown_tool', `the agent ${this.#agent.name} has no tool ${name}`)
    return tool
  }

  #key = (call: OpenCall): string => `${this.runId}:${call.tool_call_id}`

  #succeeded(call: OpenCall, result: Json, size: number, startedAt: number): SessionCall {
    return {
      ...call,
      ...this.#ended(startedAt),
      outcome: 'succeeded',
      result,
      error_message: null,
      size,
    }
  }

  #failed(call: OpenCall, message: string, startedAt: number): SessionCall {
    return {
      ...call,
      ...this.#ended(startedAt),
      outcome: 'failed',
      result: null,
      error_message: message,
      size: message.length,
    }
  }

  #ended(startedAt: number): { settled: number; duration_ms: number } {
    return {
      settled: this.#replay.nextSettled(),
      duration_ms: Math.round(performance.now() - startedAt),
    }
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
