import { createActor } from 'xstate'
import type { RunEffect } from '../../../machines/run-setup.ts'
import type { CallRow, HostedRow } from '../../store/rows.ts'
import { lanesOf } from './delegation.ts'
import { durable, type DurableLogic, type RunActor } from './durable.ts'
import type { HostOptions } from './host-options.ts'
import { Hosted } from './hosted.ts'
import type { RunMessage } from './messages.ts'
import { Reports } from './reports.ts'
import { ledgerOf, rehydrated } from './rehydrate.ts'
import { staleCancel } from './verdicts.ts'
import { sessionPort } from './session-port.ts'
import { askForSignals, Signals } from './signals.ts'

/** Within so long most attempts have something to record: their clocks go with that. */
const FIRST_RECORD_MS = 100

/**
 * The runs that this node owns, as actors of its system, and the effects that their charts name. An effect is performed
 * only while the lease is held; a run that turns out to be another node's is dropped without a trace.
 */
export class Host {
  #options: HostOptions
  #logic: DurableLogic
  #hosted = new Map<string, Hosted>()
  #emptied: (() => void)[] = []
  #draining = false

  constructor(options: HostOptions) {
    this.#options = options
    this.#logic = durable({
      committer: options.committer,
      perform: (effect, actor) => this.#perform(effect, actor.id),
      clockOf: (actor) => this.#hosted.get(actor.id)?.told,
      leave: (actor, reason) => {
        if (reason === 'fenced') this.#fenced(actor.id)
        this.#leave(actor.id, reason)
      },
    })
  }

  get size(): number {
    return this.#hosted.size
  }

  /** Runs that take a place of this node: one that waits for other runs leaves it to them. */
  get busy(): number {
    let waiting = 0
    for (const hosted of this.#hosted.values()) if (hosted.isWaitingOnChild) waiting += 1
    return this.#hosted.size - waiting
  }

  has(runId: string): boolean {
    return this.#hosted.has(runId)
  }

  /** A run that a commit of this node has claimed: the effects that the claim asks for are due, unless it was told to end. */
  start(row: HostedRow): void {
    const hosted = this.#host(row)
    if (!hosted) return
    this.#options.onCome(hosted)
    hosted.actor.send({ type: 'effects.due', effects: ['startSession'] })
  }

  /**
   * A run taken over from a dead node, or one of ours whose session is gone: the chart decides what follows. What was asked
   * of the lost attempt comes first: a recycle means the run that was stuck then.
   */
  adopt(row: HostedRow, reason: string): void {
    const hosted = this.#host(row)
    if (!hosted) return
    this.#options.onCome(hosted)
    this.#lose(hosted, reason)
  }

  /** Has a message decided by a run of this node. True when that is committed; false when it is not here, or never will be. */
  async decided(runId: string, message: RunMessage): Promise<boolean> {
    const hosted = this.#hosted.get(runId)
    return hosted !== undefined && hosted.receive(message, this.#options.monotonicMs())
  }

  /** A run that it has delegated is over: its session hears of it, or the run itself where no session is left. */
  async reported(runId: string, childRunId: string): Promise<void> {
    const { loadReport } = this.#options
    await this.#hosted.get(runId)?.reported(childRunId, loadReport)
  }

  /** There may be signals for a run. */
  signalled(runId: string): void {
    this.#hosted.get(runId)?.signals.look()
  }

  /** Runs whose code waits for a signal while something else of them is under way. */
  get awaitingSignals(): string[] {
    return [...this.#hosted].flatMap(([runId, { signals }]) => (signals.isAwaited ? runId : []))
  }

  /** A run of this node. */
  find(runId: string): Hosted | undefined {
    return this.#hosted.get(runId)
  }

  /** All of them. */
  get runs(): Iterable<Hosted> {
    return this.#hosted.values()
  }

  /** What the database does not give to this node any more: another one has ended it, or goes on with it. */
  drop(runId: string): void {
    this.#leave(runId, 'fenced')
  }

  /** Ends what did not end within the cancel time-out of being asked. */
  expireCancels(): void {
    const { monotonicMs, cancelTimeoutMs } = this.#options
    for (const hosted of this.#hosted.values()) {
      const { cancelledAt, ledger } = hosted
      if (cancelledAt === null) continue
      const age = monotonicMs() - cancelledAt
      // Its own time begins when what it has delegated is over.
      if (ledger.chart.context.children > 0) hosted.cancelledAt = monotonicMs()
      else if (age > cancelTimeoutMs) {
        const messages = staleCancel(cancelTimeoutMs, age)
        if (hosted.seize(messages)) void hosted.end(messages)
      }
    }
  }

  /** Asks every session to stop at its next boundary. Resolves when all runs have left, or after `timeoutMs`. */
  async drain(timeoutMs: number): Promise<void> {
    this.#draining = true
    for (const hosted of this.#hosted.values()) hosted.drain()
    if (this.#hosted.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#emptied.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  /** Hands over what is left after a drain: calls in flight stay recorded as started. */
  async handOverRest(timeoutMs: number): Promise<void> {
    for (const hosted of this.#hosted.values()) {
      // Not decided yet: whoever adopts it finds the command that asked for its end, or finds it stuck again.
      if (hosted.seized) continue
      hosted.endSession()
      // The tree ends before its root: whoever adopts it waits on for what it has delegated.
      if (hosted.isClosing && hosted.ledger.chart.context.children > 0) continue
      hosted.send({ type: 'attempt.handed_over' })
    }
    await this.drain(timeoutMs)
  }

  /** The node's epoch is dead: its runs belong to others. */
  dropAll(): void {
    for (const runId of this.#hosted.keys()) this.#leave(runId, 'fenced')
  }

  #host(row: HostedRow): Hosted | undefined {
    const earlier = this.#hosted.get(row.run_id)
    // Of the same attempt it is told twice; of a later one it was ended over our head meanwhile, and came back.
    const isSame = earlier?.ledger.row.owner_epoch === row.owner_epoch
    if (isSame && earlier.ledger.chart.context.attempt >= row.attempt) return undefined
    if (earlier) this.#leave(row.run_id, 'fenced')
    const { machine, root, log } = this.#options
    const { ledger, unrestorable } = ledgerOf(row, machine)
    const actor = createActor(this.#logic, {
      input: { ledger },
      id: row.run_id,
      parent: root,
    } as never) as unknown as RunActor
    const hosted = new Hosted(actor, ledger, {
      reports: new Reports((childRunId) => this.#options.loadReport(childRunId)),
      signals: new Signals(row.run_id, this.#options.readSignals),
      watchdog: this.#options.watchdog,
      monotonicMs: this.#options.monotonicMs,
    })
    if (ledger.status === 'cancel_requested') hosted.cancelledAt = this.#options.monotonicMs()
    this.#hosted.set(row.run_id, hosted)
    actor.start()
    if (unrestorable === null) return hosted
    log.error({ run_id: row.run_id, problem: unrestorable }, 'a stored run cannot be restored')
    actor.send({ type: 'run.failed', code: 'snapshot_unrestorable', message: unrestorable })
    return undefined
  }

  #lose(hosted: Hosted, reason: string): void {
    const { recovery, maxCrashes } = this.#options
    hosted.send({ type: 'attempt.lost', reason, recovery, max_crashes: maxCrashes })
  }

  #perform(effect: RunEffect, runId: string): void {
    const hosted = this.#hosted.get(runId)
    if (!hosted) return
    // Ending something needs no lease; starting something does.
    if (effect === 'endSession') return hosted.endSession()
    if (hosted.seized) return
    if (effect === 'cancelSession') return this.#cancel(hosted)
    hosted.starting += 1
    this.#start(hosted)
      .catch((error: unknown) => this.#notStarted(hosted, error))
      .finally(() => {
        hosted.starting -= 1
      })
  }

  #notStarted(hosted: Hosted, error: unknown): void {
    this.#options.log.error(
      { run_id: hosted.ledger.runId, problem: String(error) },
      'an attempt could not be started',
    )
    if (this.#isHosted(hosted)) this.#lose(hosted, 'start_failed')
  }

  async #start(hosted: Hosted): Promise<void> {
    const { ledger } = hosted
    const mine = hosted.sessions
    if (!this.#options.lease.held) await this.#options.lease.whenHeld()
    if (!this.#isHosted(hosted) || hosted.sessions !== mine) return
    if (ledger.status !== 'resuming') return this.#open(hosted, [])
    const calls = await this.#options.loadCalls(ledger.runId)
    if (!this.#isHosted(hosted) || hosted.sessions !== mine || ledger.status !== 'resuming') return
    const found = rehydrated(ledger, calls)
    if (found.type === 'human.asked') return hosted.send(found)
    if (!(await hosted.decided(found)) || hosted.sessions !== mine) return
    if (this.#isHosted(hosted)) this.#open(hosted, calls)
  }

  #open(hosted: Hosted, calls: CallRow[]): void {
    const { ledger } = hosted
    // Told to end before it began: nothing of its code runs, and the cancel ends it as soon as that is committed.
    if (ledger.status === 'cancel_requested') return
    const { run_id, conversation_id, agent, input } = ledger.row
    hosted.sessions += 1
    const mine = hosted.sessions
    const isOpen = (): boolean => this.#isHosted(hosted) && hosted.sessions === mine
    const { attempt } = ledger.chart.context
    const lanes = lanesOf(ledger.row)
    const job = { run_id, conversation_id, agent, attempt, input, lanes, calls }
    const { lease, monotonicMs, lookAt } = this.#options
    hosted.vitals.open(monotonicMs())
    const port = sessionPort({
      actor: hosted.actor,
      lease,
      isOpen,
      onBegun: () => {
        hosted.vitals.begin(monotonicMs())
        setTimeout(() => isOpen() && hosted.tellClock(), FIRST_RECORD_MS).unref()
      },
      fed: () => hosted.fed(isOpen, monotonicMs, lookAt),
      reportOf: (childRunId) => hosted.reports.of(childRunId),
      signals: hosted.signals,
      askForSignals: (asking) => askForSignals(ledger, asking),
      onSaid: (message) => hosted.said(message, monotonicMs()),
      onLate: (output) => this.#options.keepLate(run_id, output),
    })
    hosted.session = this.#options.startSession(job, port, (reason) => {
      if (isOpen()) this.#lose(hosted, reason)
    })
    // Claimed by a flush that was under way when the drain began: handed over before any of its code runs.
    if (this.#draining) hosted.drain()
  }

  #cancel(hosted: Hosted): void {
    hosted.cancel(this.#options.monotonicMs())
    if (hosted.session) return
    // Nothing of the agent has started yet, and nothing will.
    hosted.sessions += 1
    hosted.send({ type: 'session.exited', by: 'runtime' })
  }

  #isHosted(hosted: Hosted): boolean {
    return this.#hosted.get(hosted.ledger.runId) === hosted
  }

  #fenced(runId: string): void {
    const epoch = this.#hosted.get(runId)?.ledger.row.owner_epoch
    // Let go of before: nothing of it is news.
    if (epoch !== undefined) this.#options.onFenced(runId, epoch)
  }

  #leave(runId: string, reason: 'settled' | 'fenced'): void {
    const hosted = this.#hosted.get(runId)
    if (!hosted) return
    this.#hosted.delete(runId)
    if (reason === 'fenced') {
      hosted.endSession()
      // Decided here and not written any more: it was ended over our head while it came to its end.
      const { status, result } = hosted.ledger
      if (status === 'completed') this.#options.keepLate(runId, result)
    }
    hosted.leave()
    if (reason === 'settled' && hosted.ledger.chart.hasTag('parked')) this.#options.onParked(runId)
    if (this.#hosted.size > 0) return
    for (const resolve of this.#emptied.splice(0)) resolve()
  }
}
