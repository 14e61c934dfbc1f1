import { setTimeout as delay } from 'node:timers/promises'
import type { RunMachine } from '../../../machines/run.ts'
import type { Json } from '../../json.ts'
import type { OpenDelegation } from '../../store/delegations.ts'
import { isTerminal, type HostedRow, type InboxRow, type WaitpointRow } from '../../store/rows.ts'
import type { Committer } from '../commit/committer.ts'
import type { Host } from '../run/host.ts'
import type { Hosted } from '../run/hosted.ts'
import { Ledger } from '../run/ledger.ts'
import {
  childOfReport,
  endingMessages,
  messageOfLetter,
  unreadReport,
  wakingSignal,
} from './letters.ts'
import type { Logger } from '../log.ts'
import type { MessageOf, Replacement, RunMessage } from '../run/messages.ts'
import { retried } from '../retried.ts'

export interface MailroomOptions {
  machine: RunMachine
  nodeId: string
  host: Host
  committer: Committer
  inboxOf: (runId: string) => Promise<InboxRow[]>
  loadWaitpoints: (runId: string) => Promise<WaitpointRow[]>
  loadRun: (runId: string) => Promise<HostedRow | undefined>
  openDelegations: (runId: string) => Promise<OpenDelegation[]>
  /** Ends by force what a run has delegated. */
  endBelow: (runId: string) => Promise<void>
  /** Ends a run of this node by force; null when its chart refuses, and nothing was touched. */
  endHosted: (hosted: Hosted, messages: RunMessage[]) => Promise<boolean> | null
  /** Tells the owner on another node that it has mail. */
  hint: () => void
  log: Logger
}

/** Lost races against other nodes on one run before the next round of the inbox is left to go on. */
const TRIES = 8
const OPERATOR = 1
/** Runs that get their mail at the same time. */
const LANES = 16
/** How long a round waits for deliveries, in milliseconds; what takes longer goes on by itself. */
const PATIENCE_MS = 1_000

/**
 * Brings inbox letters to their runs. The run of this node gets them as messages; a run without an owner (queued,
 * waiting, parked, terminal) is decided here by compare-and-set on its version, on any node; another node's gets a hint.
 */
export class Mailroom {
  #options: MailroomOptions
  /** Deliveries under way, and the one after each: it has not read the inbox yet, so it does for all that ask now. */
  #delivering = new Map<string, { done: Promise<void>; next: Promise<void> | null }>()

  constructor(options: MailroomOptions) {
    this.#options = options
  }

  /** Delivers what is in the inbox of a run. One delivery per run at a time; never throws. */
  deliver(runId: string): Promise<void> {
    const underWay = this.#delivering.get(runId)
    if (!underWay) return this.#start(runId)
    underWay.next ??= underWay.done.then(() => this.#start(runId))
    return underWay.next
  }

  #start(runId: string): Promise<void> {
    const done = this.#deliver(runId)
      .catch((error: unknown) => {
        this.#options.log.warn({ run_id: runId, problem: String(error) }, 'mail not delivered yet')
      })
      .finally(() => {
        if (delivery.next === null) this.#delivering.delete(runId)
      })
    const delivery: { done: Promise<void>; next: Promise<void> | null } = { done, next: null }
    this.#delivering.set(runId, delivery)
    return done
  }

  /** Delivers to those that nobody is delivering to, and waits for it a while: one of them must not hold up the others. */
  async round(runIds: string[]): Promise<void> {
    const left = runIds.filter((runId) => !this.#delivering.has(runId))
    const patience = new AbortController()
    const late = delay(PATIENCE_MS, undefined, { signal: patience.signal }).catch(() => {})
    await Promise.race([this.deliverAll(left), late])
    patience.abort()
  }

  async deliverAll(runIds: string[]): Promise<void> {
    const waiting = [...runIds]
    const lane = async (): Promise<void> => {
      for (let runId = waiting.pop(); runId !== undefined; runId = waiting.pop())
        await this.deliver(runId)
    }
    await Promise.all(Array.from({ length: Math.min(LANES, runIds.length) }, lane))
  }

  /** Tells a run that has just come to this node what ends it, so that it is decided before anything of it begins. */
  receive(hosted: Hosted): void {
    for (const message of endingMessages(hosted.ledger.row, this.#options.nodeId))
      void this.#tell(hosted, message)
  }

  /** `coalesce`: gives a run that still waits for its lane another input; false when it no longer waits. */
  async replaceInput(runId: string, replaced: Replacement): Promise<boolean> {
    for (let attempt = 0; attempt < TRIES; attempt += 1) {
      const row = await this.#options.loadRun(runId)
      if (row?.status !== 'waiting_on_lane') return false
      if (await this.#decide(row, [{ type: 'input.replaced', ...replaced }])) return true
    }
    return false
  }

  /**
   * Keeps a result that came after its run was ended by force: an event for people to see. The chart is not asked, since
   * nothing is decided by it.
   */
  keepLate(runId: string, output: Json): void {
    retried(() => this.#keepLate(runId, output)).catch((error: unknown) =>
      this.#options.log.warn({ run_id: runId, problem: String(error) }, 'a late result is lost'),
    )
  }

  async #deliver(runId: string): Promise<void> {
    const { nodeId, host, inboxOf, loadRun, endBelow, hint } = this.#options
    for (let attempt = 0; attempt < TRIES; attempt += 1) {
      const letters = await inboxOf(runId)
      // Of what nobody has waited for so far no letter tells.
      host.signalled(runId)
      const messages = letters.flatMap((letter) => messageOfLetter(letter, nodeId) ?? [])
      const reports = letters.flatMap((letter) => childOfReport(letter) ?? [])
      if (letters.length === 0) return
      const hosted = host.find(runId)
      if (hosted) {
        for (const childRunId of reports) this.#report(runId, childRunId)
        if (messages.length === 0 || (await this.#hand(hosted, messages))) return
        continue
      }
      const row = await loadRun(runId)
      if (!row) return
      if (row.owner_epoch !== null) return hint()
      // Reports wait for the next attempt; of a run that is over nobody reads them any more.
      if (isTerminal(row.status)) messages.push(...reports.map(unreadReport))
      const waking = await this.#waking(row, letters)
      if (waking) messages.push(waking)
      if (messages.length === 0) return
      // Nothing of it runs that could wait for them: what it has delegated ends first, by force.
      if (messages.some(({ type }) => type === 'cancel.requested') && hasChildren(row))
        await endBelow(runId)
      if (await this.#decide(row, await this.#completed(row, messages))) return
    }
  }

  /**
   * Gives a run of this node its mail, in order. True when all of it is committed: whoever asked sees it in the run from
   * then on. What comes too late, since the run ends or leaves, has another look at the inbox to tell what became of it.
   */
  async #hand(hosted: Hosted, messages: RunMessage[]): Promise<boolean> {
    if (hosted.seized) {
      await hosted.left
      return false
    }
    const decided = messages.map((message) => this.#tell(hosted, message))
    return (await Promise.all(decided)).every(Boolean)
  }

  /** Decided when this returns; the answer is about the commit. */
  #tell(hosted: Hosted, message: RunMessage): Promise<boolean> {
    const ending =
      message.type === 'run.recycled' ? this.#options.endHosted(hosted, [message]) : null
    return ending ?? this.#options.host.decided(hosted.ledger.runId, message)
  }

  /** Its letter stays until the report is recorded, so what fails here is tried again. */
  #report(runId: string, childRunId: string): void {
    const { host, log } = this.#options
    host.reported(runId, childRunId).catch((error: unknown) => {
      log.warn({ run_id: runId, problem: String(error) }, 'a report was not delivered yet')
    })
  }

  /** The chart of this row would take the last of these messages. @throws when chart and row disagree. */
  accepts(row: HostedRow, messages: RunMessage[]): boolean {
    return Ledger.restore(row, this.#options.machine).accepts(messages)
  }

  /**
   * Ends a run that no actor of this node has, as its row was read: these messages are one decision. False when it has
   * changed since, or does not take them. One that has an owner elsewhere is taken from it by that.
   */
  async end(row: HostedRow, messages: RunMessage[]): Promise<boolean> {
    const ledger = Ledger.restore(row, this.#options.machine)
    return (
      ledger.accepts(messages) && ledger.decideAll(messages) !== undefined && this.#write(ledger)
    )
  }

  /** Decides on a run without an owner, as its row was read; false when it has changed since, or takes none of them. */
  async #decide(row: HostedRow, messages: RunMessage[]): Promise<boolean> {
    const ledger = await this.#decided(row, messages)
    return ledger.dirty && this.#write(ledger)
  }

  async #keepLate(runId: string, output: Json): Promise<void> {
    for (let attempt = 0; attempt < TRIES; attempt += 1) {
      const row = await this.#options.loadRun(runId)
      // Gone on elsewhere, it will have a result of its own.
      if (!row || !isTerminal(row.status) || row.status === 'completed') return
      const ledger = Ledger.restore(row, this.#options.machine)
      ledger.event('late_result', OPERATOR, { status: 'completed', output })
      if (await this.#write(ledger)) return
    }
  }

  /** False when the run has changed since it was read. */
  #write(ledger: Ledger): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#options.committer.enlist({
        take: () => ledger.take(),
        committed: () => resolve(true),
        refused: (reason, problem) => {
          if (reason === 'fenced') resolve(false)
          else reject(new Error(problem))
        },
      })
    })
  }

  /** Of a run that is parked for a signal, and one has come. */
  async #waking(row: HostedRow, letters: InboxRow[]): Promise<RunMessage | undefined> {
    const hasSignal = letters.some(({ kind }) => kind === 'signal')
    if (row.status !== 'waiting_on_human' || !hasSignal) return undefined
    return wakingSignal(letters, await this.#options.loadWaitpoints(row.run_id))
  }

  /** A resume is decided with what has become of the runs that it had delegated. */
  async #completed(row: HostedRow, messages: RunMessage[]): Promise<RunMessage[]> {
    const resumes = messages.some(({ type }) => type === 'resume.requested')
    if (!resumes || row.children === 0 || !isTerminal(row.status)) return messages
    const { endBelow, openDelegations } = this.#options
    // They were told to end with it. What is lost ends by itself, and what was not lost goes on.
    if (row.status === 'failed') await endBelow(row.run_id)
    const open = await openDelegations(row.run_id)
    const anew = open.flatMap(({ tool_call_id, cut_off, report }) =>
      cut_off && report ? { tool_call_id, report } : [],
    )
    const known = { children: open.length - anew.length, anew }
    return messages.map((message) =>
      message.type === 'resume.requested' ? { ...message, ...known } : message,
    )
  }

  /** Tokens of the questions that a run still waits on. */
  async #pendingTokens(runId: string): Promise<string[]> {
    const waitpoints = await this.#options.loadWaitpoints(runId)
    return waitpoints.flatMap((one) => (one.status === 'pending' ? one.token_id : []))
  }

  async #decided(row: HostedRow, messages: RunMessage[]): Promise<Ledger> {
    const { machine, log } = this.#options
    const tokens = new Set(messages.some(isAnswer) ? await this.#pendingTokens(row.run_id) : [])
    const ledger = Ledger.restore(row, machine)
    const refuse = (on: Ledger, { letter }: RunMessage, why: string): void => {
      if (letter) on.settleLetter(letter, 'refused', why)
    }
    try {
      for (const message of messages) {
        const isStale = isAnswer(message) && !tokens.delete(message.token_id)
        if (isStale || !ledger.decide(message))
          refuse(ledger, message, `not possible in ${ledger.status}`)
      }
      return ledger
    } catch (error) {
      // A letter that cannot be decided must not come back for ever, and take the others of its run with it.
      log.error({ run_id: row.run_id, problem: String(error) }, 'letters could not be decided')
      const untouched = Ledger.restore(row, machine)
      for (const message of messages) refuse(untouched, message, 'it could not be decided')
      return untouched
    }
  }
}

const hasChildren = ({ chart, status }: HostedRow): boolean =>
  !isTerminal(status) && (chart.context as { children?: number }).children !== 0

const isAnswer = (message: RunMessage): message is MessageOf<'human.answered'> =>
  message.type === 'human.answered'
