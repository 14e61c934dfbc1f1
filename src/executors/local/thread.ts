import { kill } from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import {
  type ChildReport,
  END_MESSAGES,
  type SessionMessage,
  type SessionPort,
  type Signal,
} from '../../agents/port.ts'
import type { Probe, Session } from './session.ts'
import type {
  Assignment,
  Description,
  FromThread,
  ThreadData,
  ToThread,
} from './thread-messages.ts'

/** Heap and buffers of one thread, in megabytes: an agent that eats more loses its thread. */
const MEMORY_MB_MAX = 512
const MEMORY_LOOK_MS = 100
/**
 * Where V8 itself gives up on a thread, in megabytes. No thread may come near: a single allocation that does not fit
 * below it, an array of some million elements, ends the whole process instead.
 */
const HEAP_MB_MAX = 4_096
/** A pulse that is older says nothing about the sessions any more, in milliseconds. */
const SILENT_MS = 1_000
/** How long a thread may take to say that a session which was ended hard is over; then it is blocked, and ended. */
const KILL_MS = 1_500
/** How long a thread that is ended may take to exit before its runs go on without it. */
const EXIT_MS = 1_000

export interface ThreadOptions {
  deadline: SharedArrayBuffer
  allow: readonly string[]
  version: string
  /** Environment of agent code: the service's own without its secrets. */
  environment: Readonly<Record<string, string | undefined>>
  monotonicMs: () => number
  onUncaught(runId: string | null, message: string): void
  /** The thread has ended, by itself or not. */
  onExit(thread: ExecutorThread): void
}

interface Held {
  runId: string
  port: SessionPort
  onLost: (reason: string) => void
  /** It has reported its end, or nobody listens any more. */
  over: boolean
  ending: SessionMessage | null
}

/** A thread that runs agent code, of one run or of several. */
export class ExecutorThread {
  #worker: Worker
  #port: MessagePort
  #options: ThreadOptions
  #pulse: Float64Array
  #sessions = new Map<number, Held>()
  #started = 0
  #processes = new Set<number>()
  #describing: { session: number; answer: (description: Description) => void } | null = null
  #ended: string | null = null
  #gone = false
  #ending = Promise.withResolvers<void>()
  /** Takes no new run: some code in it did not end when told to, or an error of it belongs to nobody. */
  retired = false

  constructor(options: ThreadOptions) {
    this.#options = options
    const pulse = new SharedArrayBuffer(8)
    this.#pulse = new Float64Array(pulse)
    // Before its first beat it has no loop that could be blocked: it takes as long to start as this machine is busy.
    this.#pulse[0] = Infinity
    const { deadline, allow, version } = options
    const { port1, port2: port } = new MessageChannel()
    this.#port = port1
    this.#worker = new Worker(new URL('./thread-main.ts', import.meta.url), {
      workerData: { deadline, pulse, allow, version, port } satisfies ThreadData,
      transferList: [port],
      name: 'executor',
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB_MAX },
      env: options.environment as NodeJS.ProcessEnv,
    })
    this.#port.on('message', (message: FromThread) => this.#receive(message))
    this.#worker.on('error', (error) => {
      this.#ended ??= `the executor thread failed: ${error instanceof Error ? error.message : String(error)}`
    })
    this.#worker.on('exit', (code) => this.#exited(code))
    void this.#watchMemory()
  }

  /** Sessions whose code has not ended. */
  get size(): number {
    return this.#sessions.size
  }

  /** Resolves when it has ended, and the processes that it left behind are told to. */
  get over(): Promise<void> {
    return this.#ending.promise
  }

  /** Milliseconds since its event loop turned last; negative while it starts. */
  get silentMs(): number {
    return this.#options.monotonicMs() - (this.#pulse[0] ?? 0)
  }

  get runIds(): string[] {
    return [...this.#sessions.values()].map((held) => held.runId)
  }

  start(assignment: Assignment, port: SessionPort, onLost: (reason: string) => void): Session {
    this.#started += 1
    const session = this.#started
    const held: Held = { runId: assignment.job.run_id, port, onLost, over: false, ending: null }
    this.#sessions.set(session, held)
    this.#post({ type: 'start', session, assignment })
    const silentMs = (): number => Math.max(0, this.silentMs)
    return {
      get silentMs() {
        return silentMs()
      },
      probe: () => this.#probe(session),
      result: async () => held.ending,
      timeouts: assignment.timeouts,
      onOrphan: assignment.on_orphan,
      cancel: () => this.#post({ type: 'cancel', session }),
      drain: () => this.#post({ type: 'drain', session }),
      kill: () => this.#kill(session, held),
    }
  }

  /** Imports a module and tells what is in it. */
  describe(file: string): Promise<Description> {
    this.#started += 1
    const session = this.#started
    return new Promise((answer) => {
      this.#describing = { session, answer }
      this.#post({ type: 'describe', session, file })
    })
  }

  /** Ends the thread; runs that were in it are lost with this reason. */
  end(reason: string): void {
    this.#ended ??= reason
    this.retired = true
    void this.#worker.terminate()
    // Code that waits outside of JavaScript, as for a synchronous child process, keeps its thread until it comes back;
    // nothing of it runs then, so nobody has to wait for that.
    setTimeout(() => this.#exited(1), EXIT_MS).unref()
  }

  /** Asked from outside, where the thread's own loop may be blocked; twice, as what it used may be garbage by then. */
  async #watchMemory(): Promise<void> {
    let over = 0
    while (!this.#gone && over < 2) {
      await delay(MEMORY_LOOK_MS, undefined, { ref: false })
      const heap = await this.#worker.getHeapStatistics().catch(() => null)
      const bytes = heap ? heap.used_heap_size + heap.external_memory : 0
      over = bytes > MEMORY_MB_MAX * 2 ** 20 ? over + 1 : 0
    }
    if (!this.#gone) this.end(`the executor thread used more than ${MEMORY_MB_MAX} MB of memory`)
  }

  #probe(session: number): Probe {
    if (!this.#sessions.has(session)) return 'absent'
    return this.silentMs < SILENT_MS ? 'alive' : 'unknown'
  }

  #kill(session: number, held: Held): void {
    if (held.over) return
    held.over = true
    this.#stop(session)
  }

  #stop(session: number): void {
    if (!this.#sessions.has(session)) return
    this.#post({ type: 'kill', session })
    setTimeout(() => {
      if (this.#sessions.has(session)) this.end('its executor thread was blocked by another run')
    }, KILL_MS).unref()
  }

  #receive(message: FromThread): void {
    if (message.type === 'process') return this.#note(message.pid, message.alive)
    if (message.type === 'described') return this.#described(message)
    if (message.type === 'uncaught') return this.#uncaught(message.session, message.message)
    if (message.type === 'over') return this.#over(message.session, message.abandoned)
    const held = this.#sessions.get(message.session)
    if (!held || (held.over && !isLate(held, message))) return
    if (message.type === 'begun') return held.port.begun()
    if (message.type === 'beat') return held.port.beat()
    if (message.type === 'send') {
      held.over = END_MESSAGES.has(message.message.type)
      if (held.over) held.ending = message.message
      return held.port.send(message.message)
    }
    const { session, id } = message
    const closed = (): void => this.#post({ type: 'closed', session, id })
    if (message.type === 'report' || message.type === 'signal') {
      const { port } = held
      const told: Promise<ChildReport | Signal> =
        message.type === 'report'
          ? port.reportOf(message.child_run_id)
          : port.signalNamed(message.name)
      told.then((answer) => this.#post({ type: 'answered', session, id, answer }), closed)
      return
    }
    askedOf(held.port, message).then(
      (accepted) => this.#post({ type: 'cleared', session, id, accepted }),
      closed,
    )
  }

  #over(session: number, abandoned: boolean): void {
    this.#sessions.delete(session)
    if (abandoned) this.retired = true
    if (this.retired && this.#sessions.size === 0) this.end('retired')
  }

  #described({ session, description }: Extract<FromThread, { type: 'described' }>): void {
    if (this.#describing?.session === session) this.#describing.answer(description)
  }

  /** The run whose code it was fails; an error of unknown origin may have left anything half-done in this thread. */
  #uncaught(session: number | null, message: string): void {
    const held = session === null ? undefined : this.#sessions.get(session)
    this.#options.onUncaught(held?.runId ?? null, message)
    if (this.#describing) {
      // One that an earlier module left behind is not the problem of this one.
      if (session === this.#describing.session)
        this.#describing.answer({
          problem: `importing it threw an error that nobody caught: ${message}`,
        })
      return
    }
    if (!held) {
      this.retired = true
      if (this.#sessions.size === 0) this.end('retired')
      return
    }
    if (held.over) return
    held.over = true
    held.port.send({
      type: 'run.failed',
      code: 'agent_error',
      message: `an error that nobody caught: ${message}`,
    })
    if (session !== null) this.#stop(session)
  }

  #note(pid: number, alive: boolean): void {
    if (alive) this.#processes.add(pid)
    else this.#processes.delete(pid)
  }

  #exited(code: number): void {
    if (this.#gone) return
    this.#gone = true
    this.#port.close()
    const reason = this.#ended ?? `the executor thread exited with code ${code}`
    this.#describing?.answer({ problem: reason })
    for (const pid of this.#processes) endProcess(pid)
    const lost = [...this.#sessions.values()].filter((held) => !held.over)
    this.#options.onExit(this)
    this.#sessions.clear()
    for (const { onLost } of lost) onLost(reason)
    this.#ending.resolve()
  }

  #post(message: ToThread): void {
    this.#port.postMessage(message)
  }
}

/** The result of a session that was ended by force: its port knows that it comes too late. */
const isLate = ({ ending }: Held, message: FromThread): boolean =>
  ending === null && message.type === 'send' && message.message.type === 'run.completed'

function askedOf(
  port: SessionPort,
  message: Extract<FromThread, { type: 'begin' | 'delegate' | 'park' | 'barrier' | 'clearance' }>,
): Promise<boolean> {
  if (message.type === 'park') return port.park(message.calls)
  if (message.type === 'begin') return port.begin(message.call, message.timeoutMs)
  if (message.type === 'delegate') return port.delegate(message.call, message.child)
  return (message.type === 'barrier' ? port.barrier() : port.clearance()).then(() => true)
}

/** A server process that its thread can no longer end. */
function endProcess(pid: number): void {
  try {
    kill(pid, 'SIGTERM')
  } catch {
    // It has ended by itself.
  }
}
