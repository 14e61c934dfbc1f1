import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { clip } from '../clip.ts'
import { messageOf } from '../errors.ts'
import { hashJson, type Json } from '../json.ts'
import type { CallRow } from '../store/rows.ts'
import {
  type Agent,
  type AgentContext,
  type DelegateOptions,
  type ModelReply,
  type ModelRequest,
  RunError,
  type StepScope,
  type ToolCallOptions,
} from './agent.ts'
import { CallDesk, type OpenCall } from './call-desk.ts'
import type { SessionControl } from './control.ts'
import { Delegations } from './delegate.ts'
import { callModel, type ModelFinder } from './model-call.ts'
import { type ChildReport, type Job, SAYING_LENGTH_MAX, type SessionPort } from './port.ts'
import { SignalWaits } from './signals.ts'
import { saidBefore, splitText } from './speech.ts'
import { DeltaPace } from './stream.ts'
import { invokeTool } from './tool-call.ts'
import type { Toolbox } from './toolbox.ts'
import { checkedResult, cleanText, shownInput } from './values.ts'

/** What a session needs beside the agent: how to reach its tools and its models. */
export interface SessionTools {
  toolbox: Toolbox
  findModel: ModelFinder
}

/** The `ctx` of one attempt: answers recorded calls from the envelope, makes the others and reports them. */
export class RunContext implements AgentContext {
  readonly runId: string
  readonly conversationId: string
  readonly input: Json
  readonly attempt: number
  readonly signal: AbortSignal
  readonly desk: CallDesk
  #agent: Agent
  #tools: SessionTools
  #pace = new DeltaPace()
  #delegations: Delegations
  #signals: SignalWaits

  constructor(
    agent: Agent,
    job: Job,
    port: SessionPort,
    control: SessionControl,
    tools: SessionTools,
  ) {
    this.runId = job.run_id
    this.conversationId = job.conversation_id
    this.input = job.input
    this.attempt = job.attempt
    this.signal = AbortSignal.any([
      control.soft.signal,
      control.drained.signal,
      control.hard.signal,
    ])
    this.desk = new CallDesk(job.run_id, job.calls, port, control)
    this.#agent = agent
    this.#tools = tools
    this.#delegations = new Delegations(this.desk, job)
    this.#signals = new SignalWaits(this.desk)
  }

  async step<T>(name: string, work: (scope: StepScope) => Promise<T> | T): Promise<T> {
    const { desk } = this
    const { call, recorded } = desk.open('step', name, null)
    if (recorded) return desk.replayed(recorded) as Promise<T>
    return desk.perform(async () => {
      await desk.mayAct()
      const startedAt = performance.now()
      try {
        const scope = { signal: this.signal, idempotencyKey: desk.keyOf(call) }
        const { value, size } = checkedResult(await desk.within(name, () => work(scope)))
        desk.port.send({
          type: 'call.recorded',
          call: desk.succeeded(call, value, size, startedAt),
        })
        return value as T
      } catch (error) {
        desk.keepFailure(desk.failed(call, messageOf(error), startedAt))
        throw error
      }
    })
  }

  async tool(name: string, input: Json = null, options: ToolCallOptions = {}): Promise<Json> {
    const { desk } = this
    const { call, recorded } = desk.open('tool', name, hashJson(input), {
      ...options,
      input: shownInput(input),
    })
    if (recorded && recorded.outcome !== 'started') return desk.replayed(recorded)
    return desk.perform(async () => {
      const tool = await this.#tools.toolbox.find(name, this.signal)
      if (!tool)
        throw new RunError('unknown_tool', `the agent ${this.#agent.name} has no tool ${name}`)
      return invokeTool(desk, tool, input, call)
    })
  }

  async model(request: ModelRequest): Promise<ModelReply> {
    const { desk, signal } = this
    // Instructions and tools may change with a deployment while a run is under way; what was said may not.
    const opened = desk.open('model', 'model', hashJson(request.messages))
    const { recorded } = opened
    if (recorded && recorded.outcome !== 'started')
      return desk.replayed(recorded) as unknown as Promise<ModelReply>
    const { toolbox, findModel } = this.#tools
    return desk.perform(() =>
      callModel({
        agent: this.#agent,
        request,
        opened,
        desk,
        signal,
        toolbox,
        findModel,
        pace: this.#pace,
      }),
    )
  }

  async say(said: string, options: { chunks?: number; ms?: number } = {}): Promise<void> {
    const { desk } = this
    if (typeof said !== 'string') throw new TypeError('ctx.say takes text')
    const text = cleanText(said) as string
    const { call, recorded } = desk.open('say', 'say', hashJson(text))
    if (recorded && recorded.outcome !== 'started') {
      await desk.replayed(recorded)
      return
    }
    await desk.occupy(() => this.#speak(text, options, call, recorded))
  }

  async #speak(
    text: string,
    options: { chunks?: number; ms?: number },
    call: OpenCall,
    recorded: CallRow | undefined,
  ): Promise<void> {
    const { desk } = this
    const chunks = splitText(text, options.chunks ?? 1)
    const pause = (options.ms ?? 0) / chunks.length
    const startedAt = performance.now()
    // What was streamed before a crash is with the readers already: go on behind it.
    let out = saidBefore(recorded)
    for (let spoken = out; spoken < chunks.length; spoken += 1) {
      desk.boundary()
      // More than ten a second go out together; what is left at the end is in the message itself.
      const turn = this.#pace.takeNow()
      if (turn) {
        const offset = chunks.slice(0, out).join('').length
        out = spoken + 1
        desk.port.send({
          type: 'progress.reported',
          saying: clip(text, SAYING_LENGTH_MAX),
          call: desk.started(call, null, { said: out }),
          delta: { text: chunks.slice(0, out).join('').slice(offset), offset },
        })
        desk.port.barrier().then(
          () => this.#pace.committed(turn),
          () => {},
        )
      }
      if (pause > 0) await delay(pause, undefined, { signal: this.signal })
    }
    desk.boundary()
    desk.port.send({
      type: 'call.recorded',
      call: desk.succeeded(call, text, text.length, startedAt),
    })
  }

  delegate(agent: string, input: Json = null, options: DelegateOptions = {}): Promise<ChildReport> {
    const made = this.#delegations.make(agent, input, options)
    // Code that has ended without waiting for it does not hear of its cancel.
    made.catch(() => {})
    return made
  }

  signalNamed(name: string): Promise<Json> {
    const received = this.#signals.next(name)
    // Code that goes on without it, as the loser of a race, does not hear that its session ends.
    received.catch(() => {})
    return received
  }

  async journal(fields: Record<string, Json>): Promise<void> {
    const { desk } = this
    const { call, recorded } = desk.open('journal', 'journal', hashJson(fields))
    if (recorded) {
      await desk.replayed(recorded)
      return
    }
    const { value, size } = checkedResult(fields)
    desk.port.send({
      type: 'call.recorded',
      call: desk.succeeded(call, value, size, performance.now()),
    })
  }

  heartbeat(): void {
    this.desk.port.beat()
  }

  boundary(): Promise<void> {
    return this.desk.arrive()
  }

  now = (): number => this.#value('now', Date.now)
  random = (): number => this.#value('random', Math.random)
  uuid = (): string => this.#value('uuid', randomUUID)

  #value<T extends number | string>(name: string, make: () => T): T {
    const { desk } = this
    const { call, recorded } = desk.open('value', name, null)
    if (recorded) return recorded.result as T
    const value = make()
    desk.port.send({
      type: 'call.recorded',
      call: desk.succeeded(call, value, 32, performance.now()),
    })
    return value
  }
}
