import type { Session } from '../executors/local/session.ts'
import type { RunActor } from './durable.ts'
import type { Ledger } from './ledger.ts'
import type { Reports } from './reports.ts'
import { Vitals } from './vitals.ts'
import type { Watched } from './watchdog.ts'

/** One run that this node owns. */
export class Hosted {
  readonly actor: RunActor
  readonly ledger: Ledger
  readonly vitals: Vitals
  readonly reports: Reports
  session: Session | null = null
  /** Counts sessions: what an earlier one still sends is dropped. */
  sessions = 0
  /** Monotonic time at which a cancel was passed on; its deadline is the hard stop. */
  cancelledAt: number | null = null
  /** Its session has come to its end by itself, having been told to. */
  exited = false
  /** Told to go on elsewhere. */
  draining = false
  /** Starts of something new that wait until the run is no longer stuck. */
  #waiting: (() => void)[] = []

  constructor(actor: RunActor, ledger: Ledger, reports: Reports, now: number) {
    this.actor = actor
    this.ledger = ledger
    this.reports = reports
    this.vitals = new Vitals(now)
  }

  /** A stuck run starts nothing new. One that is told to end may go on to its next boundary, where it ends. */
  get isHeldBack(): boolean {
    const { stuck_clock } = this.ledger.chart.context
    return stuck_clock !== null && this.cancelledAt === null && !this.draining
  }

  /** Resolves when it may start something, or when `isOpen` says that it does not matter any more. */
  async fed(isOpen: () => boolean): Promise<void> {
    while (isOpen() && this.isHeldBack)
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve)
      })
  }

  /** Something has changed that may let it go on. */
  feed(): void {
    if (this.#waiting.length === 0 || (this.isHeldBack && this.session)) return
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  cancel(now: number): void {
    this.cancelledAt = now
    this.session?.cancel()
    this.feed()
  }

  drain(): void {
    this.draining = true
    this.session?.drain()
    this.feed()
  }

  /** Whether it ended by itself or not: nothing of it is left, and nothing that it still sends counts. */
  endSession(): void {
    this.sessions += 1
    this.session?.kill()
    this.session = null
    this.reports.close()
    this.feed()
  }

  /** It was told to end, no code of it runs, and it waits for what it has delegated: its reports are for nobody to hear. */
  get isClosing(): boolean {
    return this.session === null && this.ledger.status === 'cancel_requested'
  }

  /** Waits for other runs; its place is free for them. */
  get isWaitingOnChild(): boolean {
    return this.ledger.status === 'waiting_on_child'
  }

  watched(now: number): Watched {
    const { status, row, fields, chart } = this.ledger
    const { stuck_clock, stuck_reason } = chart.context
    if (stuck_clock === null) this.vitals.stuck = null
    else this.vitals.stuck ??= { at: now, judged: false }
    const { stuck } = this.vitals
    return {
      status,
      stuckClock: stuck_clock,
      stuckReason: stuck_reason,
      stuckSince: stuck?.at ?? null,
      judged: stuck?.judged ?? false,
      override: row.options.execution_timeout_override ?? null,
      attemptSince: this.vitals.startedAt,
      silentSince: this.vitals.silentSince(status),
      executorSilentMs: this.session?.silentMs ?? 0,
      own: [this.session?.timeouts ?? {}, row.options.timeouts ?? {}],
      turnExtraMs: fields.turn_extended_ms,
      forgive: (ms) => this.vitals.forgive(ms),
      send: (message) => {
        if (message.type === 'verdict.noted' && stuck) stuck.judged = true
        this.actor.send(message)
        this.feed()
      },
    }
  }
}
