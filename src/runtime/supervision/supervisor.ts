import { type ActorRefFrom, createActor } from 'xstate'
import { supervisorMachine, type SupervisorEffect } from '../../../machines/supervisor.ts'
import type { Audience } from './audience.ts'
import { isConnectionError, isTransientError } from '../../store/database.ts'
import type { Logger } from '../log.ts'
import type { PassReport, Reconciler } from './reconciler.ts'
import { type Held, heldText } from './systemic.ts'
import type { Watchdog, Watched } from './watchdog.ts'

export interface SupervisorOptions {
  watchdog: Watchdog
  reconciler: Reconciler
  audience: Audience
  lookEveryMs: number
  /** How often the readers of streams are told to the database, and asked for. */
  askEveryMs: number
  reconcileEveryMs: number
  monotonicMs: () => number
  /** Tells people that runs are spared, and why; null: no longer. */
  tellSystemic(what: string | null): void
  log: Logger
}

/** A tick that comes so much later than it should says more about this process than about its runs. */
const LATE_MS = 1_000
/** Another node reconciles, or the database is away: so long until the next try, in milliseconds. */
const RETRY_MS = 5_000

/**
 * The supervisor of a node: its chart, the one scheduler that ticks it, and what its effects do. Its actor is the root of
 * the node's actor system.
 *
 * Failure semantics: a look or a pass that throws is logged and told to the chart, which goes on; nothing of it is kept
 * between looks that the runs' own records do not hold.
 */
export class Supervisor {
  readonly actor: ActorRefFrom<typeof supervisorMachine>
  #options: SupervisorOptions
  #tickMs: number
  #timer: ReturnType<typeof setInterval> | null = null
  #passing: Promise<void> = Promise.resolve()
  #asking: Promise<void> = Promise.resolve()
  #held: { watchdog: readonly Held[]; reconciler: readonly Held[] } = {
    watchdog: [],
    reconciler: [],
  }
  #told: string | null = null

  constructor(options: SupervisorOptions) {
    this.#options = options
    const { lookEveryMs, askEveryMs, reconcileEveryMs } = options
    this.#tickMs = Math.min(lookEveryMs, askEveryMs, reconcileEveryMs)
    const tellHeld = (): void => this.#tellHeld()
    const effects: Record<SupervisorEffect, () => void> = {
      forgive: () => this.#forgive(),
      look: () => this.#look(),
      askReaders: () => {
        this.#asking = this.#askReaders()
      },
      reconcile: () => {
        this.#passing = this.#reconcile()
      },
      raiseSystemic: tellHeld,
      clearSystemic: tellHeld,
    }
    this.actor = createActor(supervisorMachine.provide({ actions: effects }), {
      input: {
        tick_ms: this.#tickMs,
        look_every_ms: lookEveryMs,
        ask_every_ms: askEveryMs,
        reconcile_every_ms: reconcileEveryMs,
        retry_every_ms: Math.min(RETRY_MS, reconcileEveryMs),
        late_ms: LATE_MS,
      },
    })
  }

  /** Begins to supervise; the actor runs already. */
  start(): void {
    this.actor.send({ type: 'supervisor.started', at: this.#options.monotonicMs() })
    this.#timer = setInterval(() => this.tick(), this.#tickMs)
  }

  tick(): void {
    this.actor.send({ type: 'clock.ticked', at: this.#options.monotonicMs() })
  }

  /** At a run that is about to go on: it may be over its time since the last look. Not where a tick is overdue. */
  lookAt(run: Watched): void {
    const { ticked_at } = this.actor.getSnapshot().context
    const sinceTick = this.#options.monotonicMs() - ticked_at
    if (sinceTick <= this.#tickMs + LATE_MS) this.#options.watchdog.lookAt(run)
  }

  /** Nobody is judged from now on. Resolves when a pass under way has come to its end. */
  async stop(): Promise<void> {
    if (this.#timer) clearInterval(this.#timer)
    this.actor.send({ type: 'supervisor.stopped' })
    this.#options.reconciler.stop()
    await Promise.all([this.#passing, this.#asking])
  }

  /** So late is the tick that is being answered: the runs could not have moved meanwhile. */
  #forgive(): void {
    const { ticked_at } = this.actor.getSnapshot().context
    const ms = this.#options.monotonicMs() - ticked_at - this.#tickMs
    this.#options.watchdog.forgive(ms)
    this.#options.log.warn(
      { ms: Math.round(ms) },
      'this process stood still: its runs are forgiven',
    )
  }

  #look(): void {
    try {
      this.#held.watchdog = this.#options.watchdog.look()
      this.actor.send({ type: 'look.finished', held: this.#held.watchdog.length })
    } catch (error) {
      this.#options.log.error({ problem: String(error) }, 'a look at the runs failed')
      this.actor.send({ type: 'look.failed' })
    }
  }

  async #askReaders(): Promise<void> {
    try {
      await this.#options.audience.look()
    } catch (error) {
      this.#noteFailure(error, 'who reads could not be asked')
    }
    this.actor.send({ type: 'readers.told' })
  }

  async #reconcile(): Promise<void> {
    // The context is that of before this tick: what has come in time since is steady.
    const { steady_since } = this.actor.getSnapshot().context
    const steadyMs = this.#options.monotonicMs() - steady_since
    let report: PassReport | null
    try {
      report = await this.#options.reconciler.pass(steadyMs)
    } catch (error) {
      this.#noteFailure(error, 'a pass of the reconciler failed')
      return this.actor.send({ type: 'pass.failed' })
    }
    if (report === null) return this.actor.send({ type: 'pass.refused' })
    this.#held.reconciler = report.held
    this.actor.send({ type: 'pass.finished', held: report.held.length })
  }

  /** A database that is away is not an error: the next time tries again. */
  #noteFailure(error: unknown, what: string): void {
    if (isConnectionError(error) || isTransientError(error)) return
    this.#options.log.error({ problem: String(error) }, what)
  }

  /** Once for each change: a state that lasts is not told again and again. */
  #tellHeld(): void {
    const { watchdog, reconciler } = this.#held
    const rules = [...watchdog, ...reconciler].map(({ rule }) => rule).join()
    if (rules === (this.#told ?? '')) return
    this.#told = rules === '' ? null : rules
    this.#options.tellSystemic(rules === '' ? null : heldText([...watchdog, ...reconciler]))
  }
}
