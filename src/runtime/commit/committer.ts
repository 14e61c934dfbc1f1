import { setTimeout as delay } from 'node:timers/promises'
import { messageOf, Refusal } from '../../errors.ts'
import { appliedRecords, commitFlush } from '../../store/commits.ts'
import { isConnectionError, isDataError, isTransientError } from '../../store/database.ts'
import type {
  AuditDraft,
  CommandDraft,
  CreateGroup,
  Flush,
  FlushAnswer,
  GroupAnswer,
  RunRecord,
} from '../../store/flush.ts'
import { within } from '../../within.ts'
import {
  type Batch,
  type CommitterOptions,
  dropImpatient,
  flushOf,
  halves,
  type Item,
  madeAll,
  patientItem,
  type RecordSource,
  rejectAll,
  takeUpTo,
  unavailable,
} from './batch.ts'
import { CALLER_PATIENCE_MS, COMMIT_TIMEOUT_MS, OUTAGE_AFTER_MS } from './patience.ts'

/** Records of one flush: keeps a flush, and with it the time under the commit lock, short. */
const RECORDS_MAX = 1000
/** JSON bytes of one flush, roughly: the sum of what the records hold. */
const BYTES_MAX = 8_000_000
/** The same of the creates in it; a batch that is larger goes alone. */
const CREATE_BYTES_MAX = 2_000_000
/** Creates and commands that wait at most; beyond it callers are told to come back. */
const WAITING_MAX = 20_000
/** The same in characters. */
const WEIGHT_MAX = 64_000_000
/**
 * Group commit: while one flush is under way the next one gathers, so the round trip is shared by however many runs
 * have decided something meanwhile. One flush at a time per node.
 *
 * Failure semantics: a flush whose reply is lost is sent again with the same record ids; what the first had written is
 * then refused by its fence and recognised as applied. A flush that Postgres refuses for a value is halved until the
 * one record to blame is alone. While the database is away records wait, without limit of time; callers do not.
 */
export class Committer {
  #options: CommitterOptions
  #sources = new Set<RecordSource>()
  #groups: Item<CreateGroup>[] = []
  #commands: Item<CommandDraft>[] = []
  #audits: AuditDraft[] = []
  #adopt: Flush['adopt'] = null
  #claimAsked = false
  #running: Promise<void> | null = null
  #flush: Promise<void> = Promise.resolve()
  #stopped = false
  /** Since when the database is away, monotonic; null while it answers. */
  #awaySince: number | null = null
  /** Characters of the writes that callers wait for. */
  #weight = 0
  flushes = 0

  constructor(options: CommitterOptions) {
    this.#options = options
  }

  /** False during an outage: callers are told to come back instead of waiting. */
  get available(): boolean {
    return (
      this.#awaySince === null || this.#options.monotonicMs() - this.#awaySince < OUTAGE_AFTER_MS
    )
  }

  enlist(source: RecordSource): void {
    this.#sources.add(source)
    this.#wake()
  }

  /** Creates the runs of one request, all or none. @throws Refusal database_unavailable: outcome unknown, or not tried. */
  create(group: CreateGroup): Promise<GroupAnswer> {
    return this.#submit(this.#groups, group, group.weight) as Promise<GroupAnswer>
  }

  /** Writes a command and its inbox letter; the audit row comes with the decision. @throws Refusal database_unavailable */
  async command(command: CommandDraft): Promise<void> {
    await this.#submit(this.#commands, command, JSON.stringify(command.payload).length)
  }

  audit(audit: AuditDraft): void {
    if (this.#audits.length < WAITING_MAX) this.#audits.push(audit)
    this.#wake()
  }

  /** Asks for a claim even if nothing else is to be written. */
  claim(): void {
    this.#claimAsked = true
    this.#wake()
  }

  adopt(adopt: NonNullable<Flush['adopt']>): void {
    this.#adopt = adopt
    this.#wake()
  }

  /** Resolves when the flush that is under way, if any, has been answered. */
  async settled(): Promise<void> {
    await this.#flush
  }

  /** Waits for what is gathered; nothing is taken afterwards. */
  async stop(): Promise<void> {
    while (this.available && (this.#pending() || this.#running)) {
      this.#wake()
      await this.#running
    }
    this.#stopped = true
    rejectAll(this.#groups.splice(0))
    rejectAll(this.#commands.splice(0))
  }

  #submit<T>(queue: Item<T>[], draft: T, weight: number): Promise<GroupAnswer | undefined> {
    const full = queue.length >= WAITING_MAX || this.#weight > WEIGHT_MAX
    if (this.#stopped || !this.available || full) return Promise.reject(unavailable())
    this.#weight += weight
    const { item, answered } = patientItem(
      draft,
      weight,
      CALLER_PATIENCE_MS,
      this.#options.monotonicMs(),
    )
    queue.push(item)
    this.#wake()
    return answered.finally(() => {
      this.#weight -= weight
    })
  }

  #pending(): boolean {
    return (
      this.#sources.size > 0 ||
      this.#groups.length > 0 ||
      this.#commands.length > 0 ||
      this.#audits.length > 0 ||
      this.#adopt !== null ||
      this.#claimAsked
    )
  }

  #wake(): void {
    if (this.#running || this.#stopped) return
    this.#running = this.#run().finally(() => {
      this.#running = null
      // Something may have been decided after the loop last looked.
      if (this.#pending()) this.#wake()
    })
  }

  async #run(): Promise<void> {
    // One turn of the loop, so that everything decided in this one shares the flush.
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#pending() && !this.#stopped) {
      this.#flush = this.#write(this.#gather())
      await this.#flush
    }
  }

  #gather(): Batch {
    const records: Batch['records'] = []
    let bytes = 0
    let releases = 0
    for (const source of this.#sources) {
      if (records.length >= RECORDS_MAX || bytes > BYTES_MAX) break
      this.#sources.delete(source)
      const record = source.take()
      records.push({ source, record })
      bytes += record.weight
      if (record.change.releases) releases += 1
    }
    const groups = takeUpTo(this.#groups, CREATE_BYTES_MAX, (item) => item.weight)
    const commands = takeUpTo(this.#commands, BYTES_MAX, (item) => item.weight + 1000)
    const mayClaim = this.#claimAsked || groups.length > 0 || records.length > 0
    const claim = mayClaim ? this.#options.claimWanted(releases) : null
    const audits = this.#audits.splice(0)
    const adopt = this.#adopt
    this.#adopt = null
    this.#claimAsked = false
    return { groups, commands, records, audits, adopt, claim }
  }

  async #write(batch: Batch): Promise<void> {
    let lost = false
    for (let attempts = 1; !this.#stopped; attempts += 1) {
      let answer: FlushAnswer
      const sentAt = this.#options.monotonicMs()
      try {
        answer = await this.#send(batch)
      } catch (error) {
        if (isDataError(error)) return this.#bisect(batch, error)
        // A full disk or a missing grant is nobody's fault here: like a database that is away, it is waited for.
        if (!isTransientError(error)) this.#away(error)
        // Only a lost connection leaves open what was written. What it has claimed is found by a look at the rows.
        if (isConnectionError(error)) {
          lost = true
          batch.claim = null
        }
        dropImpatient(batch, this.#options.monotonicMs(), this.#stopped)
        await delay(Math.min(50 * 2 ** attempts, 1000) * (0.5 + Math.random() / 2))
        continue
      }
      const ms = this.#options.monotonicMs() - sentAt
      await this.#settle(batch, answer, { lost, ms })
      if (lost || this.#awaySince !== null) this.#back()
      return
    }
  }

  #send(batch: Batch): Promise<FlushAnswer> {
    this.flushes += 1
    const { line, endpoints } = this.#options
    const sent = commitFlush(line.sql, flushOf(batch, endpoints))
    return within(COMMIT_TIMEOUT_MS, sent, () => line.replace())
  }

  /** Halves the batch until one item is alone with the error: it is to blame, the others are written. */
  async #bisect(batch: Batch, error: unknown): Promise<void> {
    const parts = halves(batch)
    if (parts) {
      for (const part of parts) await this.#write(part)
      return
    }
    const message = messageOf(error)
    for (const item of [...batch.groups, ...batch.commands]) {
      item.reject(new Refusal('record_refused', `the database refused a value: ${message}`))
    }
    for (const { source } of batch.records) source.refused('data', message)
    if (batch.groups.length + batch.commands.length + batch.records.length === 0) {
      this.#options.onProblem(error)
    }
  }

  async #settle(
    batch: Batch,
    answer: FlushAnswer,
    { lost, ms }: { lost: boolean; ms: number },
  ): Promise<void> {
    const accepted = answer.accepted === null ? null : new Set(answer.accepted)
    const refused = accepted
      ? batch.records.filter(({ record }) => !accepted.has(record.change.run_id))
      : []
    // A refused record of a flush that was sent before is either the one already written, or fenced: the row tells.
    const applied =
      refused.length > 0 && lost
        ? await this.#applied(refused.map(({ record }) => record))
        : new Set<string>()
    for (const item of batch.commands) item.resolve(undefined)
    const answers = new Map(answer.groups.map((group) => [group.group_id, group]))
    for (const item of batch.groups)
      item.resolve(answers.get(item.draft.group_id) ?? madeAll(item.draft))
    const fenced = new Set(refused.filter(({ record }) => !applied.has(record.change.record_id)))
    const written = batch.records.flatMap((item) => (fenced.has(item) ? [] : item.record))
    this.#options.counts.flushed({ written, refused: fenced.size, answer, ms })
    for (const item of batch.records) {
      if (fenced.has(item)) item.source.refused('fenced', 'the run has another owner')
      else item.source.committed()
    }
    this.#options.onAnswer(answer, batch)
  }

  async #applied(records: RunRecord[]): Promise<Set<string>> {
    const recordIds = records.map((record) => record.change.record_id)
    const runIds = records.map((record) => record.change.run_id)
    for (;;) {
      try {
        return await appliedRecords(this.#options.line.sql, recordIds, runIds)
      } catch (error) {
        this.#away(error)
        await delay(200)
      }
    }
  }

  #away(error: unknown): void {
    if (this.#awaySince === null) {
      this.#awaySince = this.#options.monotonicMs()
      this.#options.onOutage(error)
    }
    if (this.available) return
    rejectAll(this.#groups.splice(0))
    rejectAll(this.#commands.splice(0))
  }

  #back(): void {
    this.#awaySince = null
    this.#options.onReconnected()
  }
}
