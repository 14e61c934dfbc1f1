import { AsyncLocalStorage } from 'node:async_hooks'
import type { Json } from '../json.ts'
import type { CallKind, CallRow, Effects } from '../store/rows.ts'
import { SessionClosed } from '../errors.ts'
import { RunError, ToolError } from './agent.ts'
import { aborted, type SessionControl, unless } from './control.ts'
import type { SessionCall, SessionPort } from './port.ts'
import { modelCodeOf, Replay } from './replay.ts'

const MOVED_MS = 1_000

/** The step whose work is running: on a resume it answers from its record, and calls inside of it would be missing. */
const insideStep = new AsyncLocalStorage<{ desk: CallDesk; name: string }>()

/** A call before its outcome. */
export type OpenCall = Omit<
  SessionCall,
  'settled' | 'outcome' | 'result' | 'error_message' | 'duration_ms' | 'size'
>

/** A call that has its position, and its record if it was made before. */
export interface Opened {
  call: OpenCall
  recorded: CallRow | undefined
}

/**
 * Where every call of an attempt is opened, answered from the record or made, and its outcome noted: the order of calls
 * is the order in which the code asks, whatever it awaits.
 */
export class CallDesk {
  readonly runId: string
  readonly control: SessionControl
  readonly port: SessionPort
  /** Delegated runs whose report is waited for. */
  #children = 0
  /** Calls in flight that do something themselves. */
  #working = 0
  #besideTold = false
  #replay: Replay
  #position = 0
  #callIds = new Set<string>()
  #fault: RunError | null = null
  #movedAt = -MOVED_MS
  /** Others see by the records that it moves; a short attempt has none for this. */
  #arrivedAt = performance.now()
  #inFlight = new Set<Promise<unknown>>()
  #occupied = 0
  /** The code has ended. */
  isOver = false
  /** Told whenever a call is asked for, and when one has settled. */
  onMove: () => void = () => {}
  /** Failures that the code may yet go on from; one that ends the run is left open, for a resume to make it again. */
  #failures: SessionCall[] = []

  constructor(runId: string, calls: CallRow[], port: SessionPort, control: SessionControl) {
    this.runId = runId
    this.port = port
    this.control = control
    this.#replay = new Replay(calls)
  }

  /** @throws SessionClosed, RunError `nondeterministic_replay`, `duplicate_tool_call_id` */
  open(
    kind: CallKind,
    name: string,
    args_hash: string | null,
    ids: { callId?: string; providerCallId?: string; input?: Json } = {},
  ): Opened {
    this.boundary()
    const outer = insideStep.getStore()
    if (outer?.desk === this) {
      throw new RunError(
        'nested_call',
        `ctx.${kind} was called inside of ctx.step(${JSON.stringify(outer.name)}): its work is recorded as a whole, so make such calls beside it`,
      )
    }
    this.settleFailures()
    this.#position += 1
    const position = this.#position
    const tool_call_id = ids.callId ?? `${kind}_${position}`
    if (this.#callIds.has(tool_call_id)) {
      throw new RunError(
        'duplicate_tool_call_id',
        `the tool call id ${tool_call_id} was used twice`,
      )
    }
    this.#callIds.add(tool_call_id)
    const provider_call_id = ids.providerCallId ?? null
    const call: OpenCall = {
      tool_call_id,
      provider_call_id,
      position,
      kind,
      tool: name,
      args_hash,
      input: ids.input ?? null,
      effects: null,
    }
    const recorded = this.#replaying(() => this.#replay.find(call))
    this.onMove()
    return { call, recorded }
  }

  /** The recorded outcome, in its turn. @throws ToolError, RunError as then */
  async replayed(recorded: CallRow): Promise<Json> {
    await this.#turn(() => this.#replay.turnOf(recorded))
    if (recorded.outcome !== 'failed') return recorded.result
    const message = recorded.error_message ?? 'the call failed'
    if (recorded.kind !== 'model') throw new ToolError(recorded.tool, message)
    throw new RunError(modelCodeOf(recorded), message)
  }

  /** Resolves when all that is recorded has settled again: what this call is answered comes after that. @throws RunError */
  async afterReplay(call: OpenCall): Promise<void> {
    await this.#turn(() => this.#replay.turnAfter(call))
  }

  #turn(wait: () => Promise<void>): Promise<void> {
    return this.occupy(wait).catch((error: unknown) => {
      if (error instanceof RunError) this.#fault ??= error
      throw error
    })
  }

  /** The code has left the recorded way: the run fails for that, even if the code has caught the error. */
  get fault(): RunError | null {
    return this.#fault
  }

  /** The code has returned. @throws RunError `nondeterministic_replay` when it made fewer calls than before */
  finished(): void {
    if (this.#fault) throw this.#fault
    this.#replaying(() => this.#replay.finished(this.#position))
  }

  #replaying<T>(look: () => T): T {
    if (this.#fault) throw this.#fault
    try {
      return look()
    } catch (error) {
      if (error instanceof RunError) this.#fault = error
      throw error
    }
  }

  /** Runs the work of a step. */
  within<T>(name: string, work: () => T): T {
    return insideStep.run({ desk: this, name }, work)
  }

  /** Counts a call as in flight until it settles. */
  async track<T>(work: () => Promise<T>): Promise<T> {
    const running = work()
    this.#inFlight.add(running)
    try {
      return await this.occupy(() => running)
    } finally {
      this.#inFlight.delete(running)
    }
  }

  /** The same of a call that does something itself, and does not wait for another run. */
  async perform<T>(work: () => Promise<T>): Promise<T> {
    this.#working += 1
    this.#tellBeside()
    return this.track(work).finally(() => {
      this.#working -= 1
    })
  }

  /** Waits for the report of a delegated run, which is no work. */
  async reported<T>(report: Promise<T>): Promise<T> {
    this.#children += 1
    this.#tellBeside()
    return this.unlessDrained(report).finally(() => {
      this.#children -= 1
    })
  }

  /** A node that dies now may have died of this run, although it waits: told once, before that work begins. */
  #tellBeside(): void {
    if (this.#besideTold || this.#working === 0 || this.#children === 0) return
    this.#besideTold = true
    this.port.send({ type: 'progress.reported', works_beside: true })
  }

  /** Something of the run is under way: a call that is answered or made, and no wait for a signal. */
  get isOccupied(): boolean {
    return this.#occupied > 0
  }

  async occupy<T>(work: () => Promise<T>): Promise<T> {
    this.#occupied += 1
    try {
      return await work()
    } finally {
      this.#occupied -= 1
      this.onMove()
    }
  }

  /** An effect starts only when all that led to it is committed, the lease is held, and nobody has asked to end. */
  async mayAct(): Promise<void> {
    await this.port.clearance()
    this.boundary()
  }

  /** Something came that is no event of its own, such as a token: progress, told at most once a second. */
  moved(): void {
    const now = performance.now()
    if (now - this.#movedAt < MOVED_MS) return
    this.#movedAt = now
    this.port.send({ type: 'progress.reported' })
  }

  /** The code has come to a boundary that is no call. @throws SessionClosed */
  arrive(): Promise<void> {
    const now = performance.now()
    if (now - this.#arrivedAt >= MOVED_MS) {
      this.#arrivedAt = now
      this.port.send({ type: 'progress.reported' })
    }
    return this.occupy(() => this.unlessEnding(this.mayAct()))
  }

  boundary(): void {
    if (this.control.ending) throw new SessionClosed('the session is ending')
  }

  /** Resolves when no call is in flight: an attempt ends only then, so that each call's outcome is recorded. */
  async quiet(): Promise<void> {
    this.isOver = true
    this.onMove()
    if (this.#children > 0 && !this.control.ending) this.port.send({ type: 'children.dismissed' })
    const hard = this.control.hard.signal
    while (this.#inFlight.size > 0 && !hard.aborted)
      await Promise.race([Promise.allSettled(this.#inFlight), aborted(hard)])
  }

  /** Gives up waiting when the run is to go on elsewhere, or its session was ended. @throws SessionClosed */
  unlessDrained<T>(waited: Promise<T>): Promise<T> {
    return unless(waited, [this.control.drained, this.control.hard])
  }

  /** The same, also when the run is cancelled. @throws SessionClosed */
  unlessEnding<T>(waited: Promise<T>): Promise<T> {
    return unless(waited, [this.control.soft, this.control.drained, this.control.hard])
  }

  /** A failure that becomes part of the record with the next call, if there is one. */
  keepFailure(call: SessionCall): void {
    if (!this.control.ending) this.#failures.push(call)
  }

  /** The code went on from its failures: they are part of the way that a replay has to take. */
  settleFailures(): void {
    for (const call of this.#failures.splice(0)) this.port.send({ type: 'call.recorded', call })
  }

  /** The same on every attempt and node. */
  keyOf = (call: OpenCall): string => `${this.runId}:${call.tool_call_id}`

  started(call: OpenCall, effects: Effects | null, result: Json = null): SessionCall {
    return {
      ...call,
      effects,
      settled: null,
      outcome: 'started',
      result,
      error_message: null,
      duration_ms: null,
      size: 16,
    }
  }

  succeeded(call: OpenCall, result: Json, size: number, startedAt: number): SessionCall {
    const outcome = 'succeeded'
    return { ...call, ...this.#ended(startedAt), outcome, result, error_message: null, size }
  }

  failed(call: OpenCall, message: string, startedAt: number, result: Json = null): SessionCall {
    return {
      ...call,
      ...this.#ended(startedAt),
      outcome: 'failed',
      result,
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
