import { createActor, type ActorRefFrom } from 'xstate'
import { nodeMachine } from '../../machines/node.ts'
import { runMachine, type RunMachine } from '../../machines/run.ts'
import { listenForHints, notifyNodes } from '../store/commits.ts'
import { logBounds, readEvents } from '../store/events.ts'
import type { FlushAnswer } from '../store/flush.ts'
import { beatRuns, setNodeStatus } from '../store/nodes.ts'
import { deleteExpired } from '../store/retention.ts'
import { loadReport } from '../store/runs.ts'
import { unreadSignals } from '../store/signals.ts'
import type { Batch } from './commit/batch.ts'
import { Chronicle } from './chronicle.ts'
import { checkMachine } from './check-machine.ts'
import { Commands } from './commands/commands.ts'
import { Committer } from './commit/committer.ts'
import { Counts } from './commit/counts.ts'
import { Creator } from './commands/create.ts'
import type { Rules } from './diagnosis/clocks.ts'
import { Feed } from './feed.ts'
import { Hints } from './hints.ts'
import { Host } from './run/host.ts'
import { Lease } from './lease.ts'
import { ADOPT_MAX, Lookout, ROUND_MS } from './lookout.ts'
import { Mailroom } from './commands/mailroom.ts'
import type { NodeOptions } from './node-options.ts'
import type { Readers } from './supervision/readers.ts'
import { Rounds } from './rounds.ts'
import { Retention } from './retention.ts'
import { retried } from './retried.ts'
import { storedRuns } from './stored.ts'
import { beatEveryMs, supervisorOf } from './supervision/supervision.ts'
import type { Supervisor } from './supervision/supervisor.ts'
import { within } from '../within.ts'

const CLAIM_MAX = 500
const HINT_MS = 50
/** How long calls in flight may go on when the node drains, and how long their hand-over may then take. */
const DRAIN_MS = 8_000
const HAND_OVER_MS = 700
const LAST_FLUSH_MS = 300
/** After so long without an answer of the database nobody is left to wait for one. */
const HANG_UP_MS = 5_000

/** One process of the service: it registers, claims and hosts runs, takes over those of dead nodes, and drains. */
export class RunlaneNode {
  readonly counts = new Counts()
  readonly feed: Feed
  readonly commands: Commands
  readonly creator: Creator
  readonly committer: Committer
  readonly lease: Lease
  readonly machine: RunMachine
  readonly rules: Rules
  /** Who reads streams: told of by whoever serves them. */
  readonly readers: Readers
  #options: NodeOptions
  #actor: ActorRefFrom<typeof nodeMachine>
  #chronicle: Chronicle
  #host: Host
  #mailroom: Mailroom
  #lookout: Lookout
  #rounds: Rounds
  #supervisor: Supervisor
  #beats: Rounds
  #retention: Retention | null
  #hints: Hints
  #unlisten: (() => Promise<void>) | null = null

  constructor(options: NodeOptions) {
    const { database, clock, log } = options
    const reads = database.runtime
    const stored = storedRuns(reads)
    this.#options = options
    this.machine = options.machine ?? runMachine
    this.rules = options
    this.#chronicle = new Chronicle(options)
    const { supervisor, readers, forcedEnds } = supervisorOf({
      ...options,
      parts: () => ({
        host: this.#host,
        mailroom: this.#mailroom,
        committer: this.committer,
        lease: this.lease,
      }),
    })
    this.#supervisor = supervisor
    this.readers = readers
    this.#actor = createActor(nodeMachine, { id: 'node', parent: supervisor.actor } as never)
    this.lease = new Lease({
      line: database.leases,
      nodeId: options.nodeId,
      version: options.version,
      leaseMs: options.leaseMs,
      monotonicMs: clock.monotonicMs,
      onLost: (epoch) => this.#startOver(epoch),
      onAway: (error, forMs) => {
        this.#chronicle.away('lease', error)
        if (forMs > HANG_UP_MS) database.hangUp()
      },
      onBack: () => this.#chronicle.back('lease'),
      onError: (error) => log.error({ problem: String(error) }, 'the lease could not be renewed'),
    })
    this.committer = new Committer({
      line: database.commits,
      monotonicMs: clock.monotonicMs,
      endpoints: options.webhooks?.endpoints ?? [],
      counts: this.counts,
      claimWanted: (releases) => this.#claimWanted(releases),
      onAnswer: (answer, batch) => this.#answered(answer, batch),
      onReconnected: () => this.#reconnected(),
      onProblem: (error) => log.error({ problem: String(error) }, 'a flush failed'),
      onOutage: (error) => this.#chronicle.away('commits', error),
    })
    this.#host = new Host({
      root: supervisor.actor,
      machine: this.machine,
      committer: this.committer,
      lease: this.lease,
      startSession: options.executor({ deadline: this.lease.shared, retried }),
      loadCalls: (runId) => retried(() => stored.loadCalls(runId)),
      keepLate: (runId, output) => this.#mailroom.keepLate(runId, output),
      loadReport: (childRunId) => retried(() => loadReport(reads, childRunId)),
      readSignals: (runId, which) => retried(() => unreadSignals(reads, runId, which)),
      onCome: (hosted) => this.#mailroom.receive(hosted),
      onParked: (runId) => void this.#mailroom.deliver(runId),
      recovery: options.recovery,
      maxCrashes: options.maxCrashes,
      cancelTimeoutMs: options.cancelTimeoutMs,
      watchdog: options.watchdog,
      monotonicMs: clock.monotonicMs,
      lookAt: (run) => supervisor.lookAt(run),
      onFenced: (runId, epoch) => this.#chronicle.fenced(runId, epoch),
      log,
    })
    this.#hints = new Hints(() => notifyNodes(reads, this.lease.epoch), HINT_MS)
    this.#mailroom = new Mailroom({
      machine: this.machine,
      nodeId: options.nodeId,
      host: this.#host,
      committer: this.committer,
      ...stored,
      endBelow: (runId) => forcedEnds.endBelow(runId),
      endHosted: (hosted, messages) => forcedEnds.endHosted(hosted, messages),
      hint: () => this.#hints.hint(),
      log,
    })
    this.creator = new Creator({
      machine: this.machine,
      committer: this.committer,
      mailroom: this.#mailroom,
      look: () => this.#rounds.look(),
    })
    this.commands = new Commands({
      machine: this.machine,
      committer: this.committer,
      mailroom: this.#mailroom,
      ...stored,
      cancelTimeoutMs: options.cancelTimeoutMs,
    })
    this.feed = new Feed({
      readEvents: (scope, afterId, limit) => readEvents(reads, scope, afterId, limit),
      logBounds: () => logBounds(reads),
      log,
    })
    this.#lookout = new Lookout({
      ...options,
      host: this.#host,
      committer: this.committer,
      lease: this.lease,
      mailroom: this.#mailroom,
      monotonicMs: clock.monotonicMs,
    })
    this.#rounds = new Rounds(() => this.#lookout.round(), ROUND_MS, log)
    const beat = (): Promise<void> => beatRuns(reads, this.lease.epoch)
    this.#beats = new Rounds(beat, beatEveryMs(options.heartbeatTimeoutMs), log)
    const { retentionMs: keptMs } = options
    const deleteOld = (limit: number) => deleteExpired(reads, keptMs ?? 0, limit)
    this.#retention = keptMs === null ? null : new Retention({ deleteExpired: deleteOld, log })
  }

  /** starting, serving, draining or stopped. */
  get status(): string {
    return this.#actor.getSnapshot().value
  }

  get hosted(): number {
    return this.#host.size
  }

  /** Registers and begins to serve. @throws when the stored snapshots are of a chart that this code cannot read. */
  async start(): Promise<void> {
    const { database, alone, log, leaseMs } = this.#options
    this.#supervisor.actor.start()
    this.#actor.start()
    await checkMachine(database.reads, this.machine, log)
    await this.lease.start()
    this.#chronicle.registered(this.lease.epoch, leaseMs)
    this.#actor.send({ type: 'node.registered' })
    if (alone) this.#adoptMore()
    if (database.notifies) {
      this.#unlisten = await listenForHints(database.reads, (from, seized) => {
        if (from === this.lease.epoch) return
        if (seized) this.#lookout.mustResync = true
        this.feed.advance()
        this.#rounds.look()
      })
    }
    this.#rounds.start()
    this.#beats.start()
    this.#supervisor.start()
    this.#retention?.start()
    this.committer.claim()
  }

  /** Stops claiming, lets calls in flight end, hands runs over, gives the lease back. At most about nine seconds. */
  async stop(): Promise<void> {
    const { database } = this.#options
    this.#actor.send({ type: 'drain.requested' })
    this.#chronicle.draining(this.#host.size)
    // Nothing of the drain may wait for a database that has gone silent.
    void setNodeStatus(database.runtime, this.lease.epoch, 'draining').catch(() => {})
    this.#lookout.stop()
    const passEnded = Promise.all([
      this.#rounds.stop(),
      this.#beats.stop(),
      this.#retention?.stop(),
      this.#supervisor.stop(),
    ])
    // A flush under way may have claimed runs: they are known, and drained, when it is answered.
    await within(LAST_FLUSH_MS, this.committer.settled(), () => {}).catch(() => {})
    await this.#host.drain(DRAIN_MS)
    if (this.#host.size > 0) await this.#host.handOverRest(HAND_OVER_MS)
    this.#chronicle.drained(this.#host.size)
    await within(LAST_FLUSH_MS, this.committer.stop(), () => {}).catch(() => {})
    await this.feed.stop()
    await passEnded
    this.#hints.stop()
    await this.lease.stop()
    await setNodeStatus(database.runtime, this.lease.epoch, 'stopped').catch(() => {})
    if (this.#lookout.othersServe)
      await notifyNodes(database.runtime, this.lease.epoch).catch(() => {})
    await this.#unlisten?.().catch(() => {})
    this.#actor.send({ type: 'drain.finished' })
  }

  #claimWanted(releases: number): { epoch: number; limit: number } | null {
    if (!this.#actor.getSnapshot().hasTag('claims')) return null
    const free = this.#options.concurrency - this.#host.busy + releases
    return free > 0 ? { epoch: this.lease.epoch, limit: Math.min(free, CLAIM_MAX) } : null
  }

  /** One commit takes over so many runs at most, so that it stays short: the next one goes on. */
  #adoptMore(): void {
    const all_others = this.#options.alone
    this.committer.adopt({ epoch: this.lease.epoch, all_others, limit: ADOPT_MAX })
  }

  #answered(answer: FlushAnswer, { records }: Batch): void {
    // The reply may come late, when this epoch is over and the runs belong to others.
    const { epoch } = this.lease
    for (const row of answer.claimed) if (row.owner_epoch === epoch) this.#host.start(row)
    const adopted = answer.adopted.filter((row) => row.owner_epoch === epoch)
    for (const row of adopted) this.#host.adopt(row, 'node_lost')
    void this.#chronicle.adopted(adopted, epoch)
    if (answer.adopted.length === ADOPT_MAX) this.#adoptMore()
    void this.#mailroom.deliverAll(answer.mail)
    this.feed.advance(answer.last_event_id)
    if (records.some(({ record }) => record.notices.length > 0)) this.#options.webhooks?.look()
    if (this.#lookout.othersServe) this.#hints.hint()
  }

  #reconnected(): void {
    this.#chronicle.back('commits')
    this.#lookout.mustResync = true
    // Nobody could vouch for a run meanwhile: before anybody is judged by that, this node does.
    this.#beats.look()
    this.#rounds.look()
  }

  /** Our epoch is dead and its runs adopted: what we still hold is not ours. */
  #startOver(epoch: number): void {
    this.#chronicle.leaseLost(epoch, this.#host.size)
    this.counts.leasesLost += 1
    this.#host.dropAll()
    this.committer.claim()
  }
}
