import { setTimeout as delay } from 'node:timers/promises'
import { Refusal } from '../errors.ts'
import { appliedRecords, commitFlush } from '../store/commits.ts'
import { isConnectionError, isDataError, isTransientError, type Line } from '../store/database.ts'
import type {
  AuditDraft,
  CommandDraft,
  CreateGroup,
  Flush,
  FlushAnswer,
  GroupAnswer,
  RunRecord,
} from '../store/flush.ts'
import { within } from '../within.ts'

/** An actor with something decided: the committer takes its record when it builds a flush, and tells what became of it. */
export interface RecordSource {
  take(): RunRecord
  committed(): void
  /** `fenced`: another owner; `data`: the database refuses a value of it. */
  refused(reason: 'fenced' | 'data', message: string): void
}

interface Item<T> {
  draft: T
  resolve(answer: GroupAnswer | undefined): void
  reject(error: Error): void
  /** Monotonic time after which the sender has given up. */
  deadline: number
}

interface Batch {
  groups: Item<CreateGroup>[]
  commands: Item<CommandDraft>[]
  audits: AuditDraft[]
  records: { source: RecordSource; record: RunRecord }[]
  adopt: Flush['adopt']
  claim: Flush['claim']
}

export interface CommitterOptions {
  line: Line
  monotonicMs: () => number
  /** The claim that this flush should carry: free places of this node after `releases` runs leave; null for none. */
  claimWanted(releases: number): Flush['claim']
  onAnswer(answer: FlushAnswer): void
  /** The reply to a commit was lost, or the database was away: claims may have been written that nobody has told us of. */
  onReconnected(): void
  onOutage(error: unknown): void
}

/** Records of one flush: keeps a flush, and with it the time under the commit lock, short. */
const RECORDS_MAX = 1000
/** JSON bytes of one flush, roughly: the sum of what the records hold. */
const BYTES_MAX = 8_000_000
/** Creates and commands that wait at most; beyond it callers are told to come back. */
const WAITING_MAX = 20_000
/** How long a caller waits for its write while the database is away, in milliseconds. */
const CALLER_PATIENCE_MS = 10_000
/** A commit that takes longer counts as lost; its outcome is found out on a new connection. */
const COMMIT_TIMEOUT_MS = 35_000

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
  flushes = 0

  constructor(options: CommitterOptions) {
    this.#options = options
  }

  get available(): boolean {
    return this.#awaySince === null
  }

  enlist(source: RecordSource): void {
    this.#sources.add(source)
    this.#wake()
  }

  /** Creates the runs of one request, all or none. @throws Refusal database_unavailable: outcome unknown, or not tried. */
  create(group: CreateGroup): Promise<GroupAnswer> {
    return this.#submit(this.#groups, group) as Promise<GroupAnswer>
  }

  /** Writes a command and its inbox letter. @throws Refusal database_unavailable */
  async command(command: CommandDraft, audit: AuditDraft): Promise<void> {
    this.#audits.push(audit)
    await this.#submit(this.#commands, command)
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
    this.#rejectCallers(this.#groups.splice(0))
    this.#rejectCallers(this.#commands.splice(0))
  }

  #submit<T>(queue: Item<T>[], draft: T): Promise<GroupAnswer | undefined> {
    if (this.#stopped || !this.available || queue.length >= WAITING_MAX) {
      return Promise.reject(unavailable())
    }
    return new Promise((resolve, reject) => {
      queue.push({
        draft,
        resolve,
        reject,
        deadline: this.#options.monotonicMs() + CALLER_PATIENCE_MS,
      })
      this.#wake()
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
    const groups = takeUpTo(this.#groups, RECORDS_MAX, (item) => item.draft.members.length)
    const commands = this.#commands.splice(0, RECORDS_MAX)
    const claim =
      this.#claimAsked || groups.length > 0 || records.length > 0
        ? this.#options.claimWanted(releases)
        : null
    const batch = {
      groups,
      commands,
      records,
      claim,
      audits: this.#audits.splice(0),
      adopt: this.#adopt,
    }
    this.#adopt = null
    this.#claimAsked = false
    return batch
  }

  async #write(batch: Batch): Promise<void> {
    let attempts = 0
    let lost = false
    for (;;) {
      try {
        const answer = await this.#send(batch)
        await this.#settle(batch, answer, lost)
        if (lost || this.#awaySince !== null) this.#back()
        return
      } catch (error) {
        if (isDataError(error)) return this.#bisect(batch, error)
        if (!isConnectionError(error) && !isTransientError(error)) {
          if (attempts >= 3) return this.#bisect(batch, error)
        } else if (isConnectionError(error)) {
          lost = true
          this.#away(error)
        }
        attempts += 1
        this.#dropImpatient(batch)
        if (this.#stopped) return
        await delay(Math.min(50 * 2 ** attempts, 1000) * (0.5 + Math.random() / 2))
      }
    }
  }

  #send(batch: Batch): Promise<FlushAnswer> {
    this.flushes += 1
    const sent = commitFlush(this.#options.line.sql, {
      groups: batch.groups.map((item) => item.draft),
      commands: batch.commands.map((item) => item.draft),
      audits: batch.audits,
      records: batch.records.map((item) => item.record),
      adopt: batch.adopt,
      claim: batch.claim,
    })
    return within(COMMIT_TIMEOUT_MS, sent, () => this.#options.line.replace())
  }

  /** Halves the batch until one item is alone with the error: it is to blame, the others are written. */
  async #bisect(batch: Batch, error: unknown): Promise<void> {
    const whole = [...batch.groups, ...batch.commands, ...batch.records]
    if (whole.length > 1) {
      const first = new Set<unknown>(whole.slice(0, whole.length >> 1))
      await this.#write({
        ...pick(batch, (item) => first.has(item)),
        audits: [],
        adopt: null,
        claim: null,
      })
      await this.#write(pick(batch, (item) => !first.has(item)))
      return
    }
    const message = error instanceof Error ? error.message : String(error)
    for (const item of [...batch.groups, ...batch.commands]) {
      item.reject(new Refusal('record_refused', `the database refused a value: ${message}`))
    }
    for (const { source } of batch.records) source.refused('data', message)
    if (whole.length === 0) throw error
  }

  async #settle(batch: Batch, answer: FlushAnswer, lost: boolean): Promise<void> {
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
    for (const item of batch.records) {
      if (fenced.has(item)) item.source.refused('fenced', 'the run has another owner')
      else item.source.committed()
    }
    this.#options.onAnswer(answer)
  }

  async #applied(records: RunRecord[]): Promise<Set<string>> {
    const recordIds = records.map((record) => record.change.record_id)
    const runIds = records.map((record) => record.change.run_id)
    for (;;) {
      try {
        return await appliedRecords(this.#options.line.sql, recordIds, runIds)
      } catch (error) {
        if (!isConnectionError(error) && !isTransientError(error)) throw error
        this.#away(error)
        await delay(200)
      }
    }
  }

  #away(error: unknown): void {
    if (this.#awaySince !== null) return
    this.#awaySince = this.#options.monotonicMs()
    this.#options.onOutage(error)
    this.#rejectCallers(this.#groups.splice(0))
    this.#rejectCallers(this.#commands.splice(0))
  }

  #back(): void {
    this.#awaySince = null
    this.#options.onReconnected()
  }

  /** Callers do not wait for ever: after their patience the create is taken out of the retries. It may have been written. */
  #dropImpatient(batch: Batch): void {
    const now = this.#options.monotonicMs()
    const impatient = <T>(item: Item<T>): boolean => this.#stopped || item.deadline < now
    this.#rejectCallers(batch.groups.filter(impatient))
    this.#rejectCallers(batch.commands.filter(impatient))
    batch.groups = batch.groups.filter((item) => !impatient(item))
    batch.commands = batch.commands.filter((item) => !impatient(item))
  }

  #rejectCallers(items: { reject(error: Error): void }[]): void {
    for (const item of items) item.reject(unavailable())
  }
}

const unavailable = (): Refusal =>
  new Refusal(
    'database_unavailable',
    'the database is away; the write may or may not have happened: repeat it with the same Idempotency-Key',
  )

const madeAll = (group: CreateGroup): GroupAnswer => ({
  group_id: group.group_id,
  runs: group.members.map(({ run_id }) => ({ run_id, existing: false })),
})

function pick(batch: Batch, keep: (item: unknown) => boolean): Batch {
  return {
    ...batch,
    groups: batch.groups.filter(keep),
    commands: batch.commands.filter(keep),
    records: batch.records.filter(keep),
  }
}

function takeUpTo<T>(queue: T[], most: number, sizeOf: (item: T) => number): T[] {
  let size = 0
  let count = 0
  while (count < queue.length && (count === 0 || size + sizeOf(queue[count] as T) <= most)) {
    size += sizeOf(queue[count] as T)
    count += 1
  }
  return queue.splice(0, count)
}
