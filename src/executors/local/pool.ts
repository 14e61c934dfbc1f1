import { availableParallelism } from 'node:os'
import type { Timeouts } from '../../agents/agent.ts'
import type { OnOrphan } from '../../agents/on-orphan.ts'
import type { SessionMessage, SessionPort } from '../../agents/port.ts'
import { formatDuration } from '../../duration.ts'
import type { Probe, Session } from './session.ts'
import { ExecutorThread, type ThreadOptions } from './thread.ts'
import type { Assignment } from './thread-messages.ts'

/** Threads that runs share while all goes well. */
const SHARED = Math.max(2, Math.min(8, availableParallelism()))
/** Threads of single runs, and in all: as many as runs share are never taken by single ones. */
const THREADS_MAX = 64
/** A thread that has been silent for so long gets no new run. */
const SILENT_MS = 100
const LOOK_MS = 250
/** Runs remembered for having lost their thread. */
const LOSSES_MAX = 10_000

export interface PoolOptions extends Omit<ThreadOptions, 'onExit'> {
  /** A shared thread that is blocked for so long is ended, so that the runs beside the one that blocks it go on. */
  silenceMs: number
}

/** A session that no thread has room for: `begin` answers whether one has by now. */
interface Waiting {
  begin: () => boolean
}

/**
 * The threads that run agent code. Runs share a few of them; one that was ended takes its runs with it, and each goes on
 * from its records in a thread of its own: whichever of them was to blame harms nobody but itself from then on.
 */
export class ThreadPool {
  #options: PoolOptions
  #shared = new Set<ExecutorThread>()
  #own = new Set<ExecutorThread>()
  /** Runs whose thread ended under them. */
  #losses = new Set<string>()
  #waiting: Waiting[] = []
  #look: ReturnType<typeof setInterval> | null = null

  constructor(options: PoolOptions) {
    this.#options = options
  }

  /** Starts an attempt, at once or as soon as a thread is free; `alone`: in a thread that no other run enters. */
  start(
    assignment: Assignment,
    alone: boolean,
    port: SessionPort,
    onLost: (reason: string) => void,
  ): Session {
    const runId = assignment.job.run_id
    const own = alone || this.#losses.has(runId)
    const late = new LateSession()
    const watched = watch(port, () => this.#losses.delete(runId))
    const begin = (): boolean => {
      const thread = own ? this.#ownThread() : this.#sharedThread()
      if (!thread) return false
      late.attach(thread.start(assignment, watched, onLost))
      return true
    }
    if (!begin()) this.#enqueue(begin, late, port)
    this.#look ??= setInterval(() => this.#tend(), LOOK_MS).unref()
    return late
  }

  /** The code of the agents has changed: new runs get new threads, the present ones end with their runs. */
  renew(): void {
    for (const thread of this.#shared) {
      thread.retired = true
      if (thread.size === 0) thread.end('retired')
    }
  }

  async close(): Promise<void> {
    if (this.#look) clearInterval(this.#look)
    const threads = [...this.#shared, ...this.#own]
    for (const thread of threads) thread.end('the service stops')
    await Promise.all(threads.map((thread) => thread.over))
  }

  /** Nothing of it has begun: a cancel or a drain is answered at once, and nothing will. */
  #enqueue(begin: () => boolean, late: LateSession, port: SessionPort): void {
    const waiting: Waiting = { begin }
    this.#waiting.push(waiting)
    port.send({ type: 'progress.reported', phase: 'waiting for an executor thread' })
    late.onTold = (what) => {
      this.#waiting = this.#waiting.filter((one) => one !== waiting)
      if (what === 'cancel') port.send({ type: 'session.exited' })
      if (what === 'drain') port.send({ type: 'attempt.handed_over' })
    }
  }

  #ownThread(): ExecutorThread | undefined {
    if (this.#own.size + Math.max(SHARED, this.#shared.size) >= THREADS_MAX) return undefined
    const thread = this.#newThread(this.#own)
    thread.retired = true
    return thread
  }

  /** The emptiest thread that answers; another one while there are few, or when none answers. */
  #sharedThread(): ExecutorThread | undefined {
    const usable = [...this.#shared].filter((thread) => !thread.retired)
    const [emptiest] = usable
      .filter((thread) => thread.silentMs < SILENT_MS)
      .toSorted((a, b) => a.size - b.size)
    if (emptiest && (emptiest.size === 0 || usable.length >= SHARED)) return emptiest
    if (this.#own.size + this.#shared.size >= THREADS_MAX) return emptiest
    return this.#newThread(this.#shared)
  }

  #newThread(among: Set<ExecutorThread>): ExecutorThread {
    const thread = new ExecutorThread({
      ...this.#options,
      onExit: (ended) => {
        among.delete(ended)
        for (const runId of ended.runIds) this.#noteLoss(runId)
      },
    })
    among.add(thread)
    return thread
  }

  #noteLoss(runId: string): void {
    const [oldest] = this.#losses
    if (this.#losses.size >= LOSSES_MAX && oldest !== undefined) this.#losses.delete(oldest)
    this.#losses.add(runId)
  }

  #tend(): void {
    for (const thread of this.#shared) {
      if (thread.size > 1 && thread.silentMs > this.#options.silenceMs)
        thread.end(
          `the executor thread was unresponsive for ${formatDuration(this.#options.silenceMs)}`,
        )
    }
    // More than the usual number is there only while others are blocked.
    const idle = [...this.#shared].filter((thread) => thread.size === 0)
    for (const thread of idle.slice(0, Math.max(0, this.#shared.size - SHARED)))
      thread.end('retired')
    this.#waiting = this.#waiting.filter((one) => !one.begin())
  }
}

type Order = 'cancel' | 'drain' | 'kill'

/** What is told of a session before it has a thread is passed on when it has. */
export class LateSession implements Session {
  #session: Session | null = null
  #told: Order[] = []
  /** Hears of an order that comes before there is a thread. */
  onTold: ((what: Order) => void) | null = null

  get silentMs(): number {
    return this.#session?.silentMs ?? 0
  }

  probe(): Probe {
    return this.#session?.probe() ?? (this.killed ? 'absent' : 'alive')
  }

  async result(): Promise<SessionMessage | null> {
    return (await this.#session?.result()) ?? null
  }

  attach(session: Session): void {
    this.#session = session
    for (const what of this.#told.splice(0)) session[what]()
  }

  cancel = (): void => this.#tell('cancel')
  drain = (): void => this.#tell('drain')
  kill = (): void => this.#tell('kill')

  get timeouts(): Timeouts {
    return this.#session?.timeouts ?? {}
  }

  get onOrphan(): OnOrphan {
    return this.#session?.onOrphan ?? 'keep'
  }

  get killed(): boolean {
    return this.#told.includes('kill')
  }

  #tell(what: Order): void {
    if (this.#session) return this.#session[what]()
    this.#told.push(what)
    this.onTold?.(what)
  }
}

/** The same port; `onSettled` is called once the run has ended by itself. */
function watch(port: SessionPort, onSettled: () => void): SessionPort {
  return {
    send(message) {
      if (message.type === 'run.completed' || message.type === 'run.failed') onSettled()
      port.send(message)
    },
    barrier: () => port.barrier(),
    clearance: () => port.clearance(),
    begun: () => port.begun(),
    begin: (call, timeoutMs) => port.begin(call, timeoutMs),
    delegate: (call, child) => port.delegate(call, child),
    reportOf: (childRunId) => port.reportOf(childRunId),
    signalNamed: (name) => port.signalNamed(name),
    park: (calls) => port.park(calls),
    beat: () => port.beat(),
  }
}
