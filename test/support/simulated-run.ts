import { createActor } from 'xstate'
import type { Session } from '../../src/executors/local/session.ts'
import type { Committer } from '../../src/runtime/commit/committer.ts'
import type { RecordSource } from '../../src/runtime/commit/batch.ts'
import { durable, type RunActor } from '../../src/runtime/run/durable.ts'
import { Hosted } from '../../src/runtime/run/hosted.ts'
import { Ledger } from '../../src/runtime/run/ledger.ts'
import type { RunMessage } from '../../src/runtime/run/messages.ts'
import { Reports } from '../../src/runtime/run/reports.ts'
import { Signals } from '../../src/runtime/run/signals.ts'
import { watchedOf } from '../../src/runtime/run/watched.ts'
import type { WatchdogRules } from '../../src/runtime/supervision/clocks.ts'
import { Watchdog } from '../../src/runtime/supervision/watchdog.ts'
import type { WaitFacts } from '../../src/store/diagnosis.ts'
import type { RowChange } from '../../src/store/flush.ts'
import type { HostedRow, RunOptions } from '../../src/store/rows.ts'
import { runDraft } from './run-drafts.ts'
import { WELL } from './wait-facts.ts'

const LOOK_MS = 1_000
const EPOCH = 1

/**
 * A run of a node, with its actor, its clocks and its watchdog, in a time of its own. What stands for the database takes a
 * while to commit what is decided, and has the row by which a diagnosis judges.
 */
export class SimulatedRun {
  readonly hosted: Hosted
  /** Since when its executor has no pulse; null: it has one. */
  silentSince: number | null = null
  /** When the watchdog ended it. */
  endedAt: number | null = null
  now = 1_000_000
  #watchdog: Watchdog
  #nextLook = this.now + LOOK_MS
  #source: RecordSource | null = null
  #flush: { change: RowChange; commitAt: number; answerAt: number } | null = null
  #row: Pick<RowChange, 'status' | 'stuck_reason' | 'clock'> & { at: number }
  #latencyMs: () => number

  constructor(rules: WatchdogRules, options: RunOptions, latencyMs: () => number) {
    this.#latencyMs = latencyMs
    this.#row = { status: 'running', stuck_reason: null, clock: null, at: this.now }
    const monotonicMs = (): number => this.now
    const committer = {
      enlist: (source: RecordSource) => {
        this.#source = source
      },
    } as unknown as Committer
    const host = { committer, perform: () => {}, leave: () => {}, clockOf: () => this.hosted.told }
    const ledger = Ledger.restore(claimedRow(options))
    const actor = createActor(durable(host), { input: { ledger } }) as RunActor
    actor.start()
    const reports = new Reports(async () => undefined)
    const signals = new Signals(ledger.runId, async () => [])
    this.hosted = new Hosted(actor, ledger, { reports, signals, watchdog: rules, monotonicMs })
    this.hosted.session = this.#session()
    this.#watchdog = new Watchdog({
      ...rules,
      runs: () => (this.endedAt === null ? [watchedOf(this.hosted, this.now)] : []),
      isAway: () => false,
      end: async () => (this.endedAt = this.now),
      monotonicMs,
      now: monotonicMs,
    })
  }

  /** Its session says something. */
  say(message: RunMessage): void {
    this.hosted.actor.send(message as never)
    this.hosted.said(message, this.now)
  }

  /** Its session comes to the start of something new, where it may find itself held. */
  arrive(): void {
    if (this.hosted.isHeldBack) return
    let times = 0
    void this.hosted.fed(
      () => (times += 1) === 1,
      () => this.now,
      (run) => this.#watchdog.lookAt(run),
    )
  }

  /** Time goes by, with all that the node does meanwhile. */
  pass(ms: number): void {
    const until = this.now + ms
    while (this.now < until) {
      this.now = Math.min(until, this.now + 10)
      this.#commit()
      if (this.now < this.#nextLook) continue
      this.#watchdog.look()
      this.#nextLook = this.now + LOOK_MS
    }
  }

  /** The whole process stands still. */
  freeze(ms: number): void {
    this.now += ms
    this.#watchdog.forgive(ms)
  }

  /** What the database knows of it. */
  facts(): WaitFacts {
    const { status, stuck_reason, clock, at } = this.#row
    const stuck_since = stuck_reason === null ? null : timeOf(at)
    const row = { status, stuck_reason, stuck_since, clock, clock_at: timeOf(at) }
    return { ...WELL, ...row, now: timeOf(this.now) }
  }

  #commit(): void {
    const flush = this.#flush
    if (!flush) {
      if (this.#source === null) return
      const source = this.#source
      this.#source = null
      const { change } = source.take()
      const commitAt = this.now + this.#latencyMs()
      this.#flush = { change, commitAt, answerAt: commitAt + this.#latencyMs() }
      this.#answered = () => source.committed()
      return
    }
    if (this.now >= flush.commitAt) this.#row = { ...flush.change, at: flush.commitAt }
    if (this.now < flush.answerAt) return
    this.#flush = null
    this.#answered()
  }
  #answered: () => void = () => {}

  #session(): Session {
    const silentMs = (): number => (this.silentSince === null ? 0 : this.now - this.silentSince)
    return {
      get silentMs() {
        return silentMs()
      },
      probe: () => 'alive',
      result: async () => null,
      timeouts: {},
      onOrphan: 'keep',
      cancel: () => {},
      drain: () => {},
      kill: () => {},
    }
  }
}

const timeOf = (ms: number): string => new Date(ms).toISOString()

/** A row as a claim of this node leaves it. */
function claimedRow(options: RunOptions): HostedRow {
  const { chart, ...draft } = runDraft()
  return {
    ...draft,
    chart,
    ...{ line_events: ['lane.granted', 'run.claimed'], status: 'running', attempt: 1 },
    ...{ owner_epoch: EPOCH, version: 1, last_sequence: 3, turn_extended_ms: 0, children: 0 },
    ...{ stuck_reason: null, cancel_requested_at: null, detail: null, phase: null, tool: null },
    options,
  } as unknown as HostedRow
}
