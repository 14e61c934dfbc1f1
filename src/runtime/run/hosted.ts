import type { ChildReport } from '../../agents/port.ts'
import { reportLetter } from './delegation.ts'
import type { Session } from '../../executors/local/session.ts'
import type { RunActor, Settled } from './durable.ts'
import type { Ledger } from './ledger.ts'
import type { RunMessage } from './messages.ts'
import type { Reports } from './reports.ts'
import type { Signals } from './signals.ts'
import { ToldClock } from './told-clock.ts'
import { Vitals } from './vitals.ts'
import { watchedOf } from './watched.ts'
import type { Performing } from '../supervision/audience.ts'
import type { WatchdogRules } from '../supervision/clocks.ts'
import { rowClockOf } from '../supervision/row-clock.ts'
import type { Watched } from '../supervision/watchdog.ts'
import { within } from '../../within.ts'

/** How long an executor may take to say how a run has ended. */
const RESULT_MS = 5_000

/** Surfaces behind which somebody sits and reads. */
const READ_SURFACES: ReadonlySet<string> = new Set(['chat', 'playground'])

export interface HostedOptions {
  reports: Reports
  signals: Signals
  watchdog: WatchdogRules
  monotonicMs: () => number
}

/** One run that this node owns. */
export class Hosted {
  readonly actor: RunActor
  readonly ledger: Ledger
  readonly vitals: Vitals
  readonly reports: Reports
  readonly signals: Signals
  /** What its row says of its clocks. */
  readonly told: ToldClock
  session: Session | null = null
  /** Counts sessions: what an earlier one still sends is dropped. */
  sessions = 0
  /** Monotonic time at which a cancel was passed on; its deadline is the hard stop. */
  cancelledAt: number | null = null
  /** Its session has come to its end by itself, having been told to. */
  exited = false
  /** Told to go on elsewhere. */
  draining = false
  /** Taken from its executor to be ended by force: nothing but that end is decided of it any more. */
  seized = false
  /** Sessions that are about to begin. */
  starting = 0
  readonly #left = Promise.withResolvers<void>()
  /** Starts of something new that wait until the run is no longer stuck. */
  #waiting: (() => void)[] = []

  constructor(
    actor: RunActor,
    ledger: Ledger,
    { reports, signals, watchdog, monotonicMs }: HostedOptions,
  ) {
    this.actor = actor
    this.ledger = ledger
    this.reports = reports
    this.signals = signals
    this.vitals = new Vitals(monotonicMs())
    const clockAt = (at: number) =>
      this.isActive ? rowClockOf(watchedOf(this, at), watchdog, at) : null
    this.told = new ToldClock(clockAt, monotonicMs)
  }

  /** A stuck run starts nothing new. One that is told to end may go on to its next boundary, where it ends. */
  get isHeldBack(): boolean {
    const { stuck_clock } = this.ledger.chart.context
    return stuck_clock !== null && this.cancelledAt === null && !this.draining
  }

  /**
   * It has come to the start of something new. Resolves when it may start that, or when `isOpen` says that it does not
   * matter any more. `lookAt`: its watchdog looks at it now.
   */
  async fed(
    isOpen: () => boolean,
    monotonicMs: () => number,
    lookAt: (run: Watched) => void,
  ): Promise<void> {
    for (;;) {
      if (!isOpen()) return
      this.#arrive(monotonicMs(), lookAt)
      if (!this.isHeldBack) return
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve)
      })
    }
  }

  /** To come so far is progress; what holds it here is another call that hangs, or a turn that took too long. */
  #arrive(now: number, lookAt: (run: Watched) => void): void {
    this.vitals.movedAt = now
    if (this.isHeldBack) this.send({ type: 'progress.reported' })
    // Its time may be over without anybody having seen that yet.
    if (this.cancelledAt === null && !this.draining) lookAt(watchedOf(this, now))
  }

  /** What its session has said, which is decided by now. */
  said(message: RunMessage, now: number): void {
    this.vitals.note(message, this.ledger.status, now)
    this.feed()
    // Its code is over, the run is not: what an earlier attempt has delegated still is to end.
    if (message.type !== 'session.exited' || this.ledger.status !== 'cancel_requested') return
    this.exited = true
    this.endSession()
  }

  /** Its row says what the watchdog counts with, or is written so. */
  tellClock(): void {
    if (!this.seized && this.ledger.isSettled && this.told.isUntrue)
      this.actor.send({ type: 'record.wanted' })
  }

  /** Has a message decided that came from elsewhere; answers as `decided` does. */
  receive(message: RunMessage, now: number): Promise<boolean> {
    const { fields } = this.ledger
    const before = fields.turn_extended_ms
    const decided = this.decided(message)
    if (fields.turn_extended_ms > before) this.vitals.extend(before, this.ledger.status, now)
    return decided
  }

  /** Messages that are one decision. */
  send(...messages: RunMessage[]): void {
    this.#ask(messages)
  }

  /** True when the decision is committed; false when it is not made here, or never will be. */
  decided(...messages: RunMessage[]): Promise<boolean> {
    return this.#answer((settled) => this.#ask(messages, settled))
  }

  /** Resolves when all that was decided before is committed, or never will be. */
  async committed(): Promise<void> {
    await this.#answer((settled) => this.actor.send({ type: 'barrier.asked', settled }))
  }

  /** Resolves when its host has let go of it: ended, parked, handed over, or another node's. */
  get left(): Promise<void> {
    return this.#left.promise
  }

  leave(): void {
    this.actor.send({ type: 'actor.released' })
    this.#left.resolve()
  }

  #ask(messages: readonly RunMessage[], settled?: Settled): void {
    if (this.seized) return settled?.('not_accepted')
    this.actor.send({ type: 'decision.asked', messages, ...(settled ? { settled } : {}) })
    this.feed()
  }

  /** An actor that has stopped answers nobody. */
  #answer(ask: (settled: Settled) => void): Promise<boolean> {
    const answered = new Promise<boolean>((resolve) =>
      ask((refusal) => resolve(refusal === undefined)),
    )
    return Promise.race([answered, this.left.then(() => false)])
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
    this.vitals.close()
    this.reports.close()
    this.signals.close()
    this.feed()
  }

  /** It was told to end, no code of it runs, and it waits for what it has delegated: its reports are for nobody to hear. */
  get isClosing(): boolean {
    return this.session === null && !this.seized && this.ledger.status === 'cancel_requested'
  }

  /** A run that it has delegated is over: its session hears of it, or the run itself where no session is left. */
  async reported(
    childRunId: string,
    loadReport: (childRunId: string) => Promise<ChildReport | undefined>,
  ): Promise<void> {
    if (!this.isClosing) return this.reports.arrived(childRunId)
    const found = await loadReport(childRunId)
    if (!found || !this.isClosing) return
    const report = { ...found, output: null }
    const letter = reportLetter(childRunId)
    this.send({ type: 'child.reported', call: null, report, letter })
    this.send({ type: 'session.exited', ...(this.exited ? {} : { by: 'runtime' }) })
  }

  /** Waits for other runs; its place is free for them. */
  get isWaitingOnChild(): boolean {
    return this.ledger.status === 'waiting_on_child'
  }

  /**
   * Takes it from its executor, if its chart would end it by these messages now: what the executor says from now on does
   * not count, what it does is aborted, and the end cannot be refused any more. False: nothing was touched.
   */
  seize(messages: readonly RunMessage[]): boolean {
    if (this.seized || !this.isActive || !this.ledger.accepts(messages)) return false
    this.seized = true
    this.endSession()
    return true
  }

  /** Ends a seized run; false when it has left before, or its last record was refused, which ends it too. */
  end(messages: readonly RunMessage[]): Promise<boolean> {
    return this.#answer((settled) => this.actor.send({ type: 'decision.asked', messages, settled }))
  }

  get isActive(): boolean {
    return this.ledger.chart.hasTag('active')
  }

  /** Nothing performs it, and we were not told of an end: its executor does not know it, or it has none. */
  get isUnreported(): boolean {
    if (!this.isActive || this.seized) return false
    if (this.session) return this.session.probe() === 'absent'
    // One that was told to end has a deadline of its own.
    const isClosing = this.ledger.status === 'cancel_requested'
    return !isClosing && this.starting === 0 && this.ledger.isSettled
  }

  /** Asks its executor how it has ended; false when there is no answer. */
  async recoverResult(): Promise<boolean> {
    const { session } = this
    if (!session) return false
    const ending = await within(RESULT_MS, session.result(), () => {}).catch(() => null)
    if (ending === null || this.session !== session) return false
    return this.decided(ending)
  }

  /** Null: nobody needs to read it, or it is about to end. */
  performing(now: number): Performing | null {
    const { row, status, chart } = this.ledger
    const { orphan, stuck_clock } = chart.context
    const isActive = chart.hasTag('active') && status !== 'cancel_requested'
    if (!READ_SURFACES.has(row.surface) || !isActive || !this.session) return null
    if (orphan) this.vitals.orphanAt ??= now
    else this.vitals.orphanAt = null
    return {
      runId: row.run_id,
      conversationId: row.conversation_id,
      activeSince: this.vitals.activeSince,
      stuck: stuck_clock !== null,
      orphanSince: this.vitals.orphanAt,
      onOrphan: this.session.onOrphan,
      send: (...messages) => this.send(...messages),
    }
  }
}
