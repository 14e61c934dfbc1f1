import { Refusal } from '../../errors.ts'
import type { Line } from '../../store/database.ts'
import type {
  AuditDraft,
  CommandDraft,
  CreateGroup,
  Flush,
  FlushAnswer,
  GroupAnswer,
  RunRecord,
} from '../../store/flush.ts'
import type { Counts } from './counts.ts'
import { deliveriesOf } from '../run/notices.ts'

/** An actor with something decided: the committer takes its record when it builds a flush, and tells what became of it. */
export interface RecordSource {
  take(): RunRecord
  committed(): void
  /** `fenced`: another owner; `data`: the database refuses a value of it. */
  refused(reason: 'fenced' | 'data', message: string): void
}

/** A write that a caller waits for. */
export interface Item<T> {
  draft: T
  /** Characters that it takes in a flush, roughly. */
  weight: number
  resolve(answer: GroupAnswer | undefined): void
  reject(error: Error): void
  /** Monotonic time after which the sender has given up. */
  deadline: number
}

/** What goes into one flush, with those who wait for it. */
export interface Batch {
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
  /** URLs that get the notices of all runs. */
  endpoints: readonly string[]
  counts: Counts
  /** The claim that this flush should carry: free places of this node after `releases` runs leave; null for none. */
  claimWanted(releases: number): Flush['claim']
  onAnswer(answer: FlushAnswer, batch: Batch): void
  /** The reply to a commit was lost, or the database was away: claims may have been written that nobody has told us of. */
  onReconnected(): void
  onOutage(error: unknown): void
  /** A flush failed, and no record, create or command of it is to blame. */
  onProblem(error: unknown): void
}

export function flushOf(batch: Batch, endpoints: readonly string[]): Flush {
  const records = batch.records.map((item) => item.record)
  return {
    groups: batch.groups.map((item) => item.draft),
    commands: batch.commands.map((item) => item.draft),
    audits: batch.audits,
    records,
    deliveries: deliveriesOf(records, endpoints),
    adopt: batch.adopt,
    claim: batch.claim,
  }
}

/** The two halves of what may be to blame for an error; everything else goes with the second. Undefined for one item. */
export function halves(batch: Batch): [Batch, Batch] | undefined {
  const whole = [...batch.groups, ...batch.commands, ...batch.records]
  if (whole.length < 2) return undefined
  const first = new Set<unknown>(whole.slice(0, whole.length >> 1))
  return [
    { ...pick(batch, (item) => first.has(item)), audits: [], adopt: null, claim: null },
    pick(batch, (item) => !first.has(item)),
  ]
}

function pick(batch: Batch, keep: (item: unknown) => boolean): Batch {
  return {
    ...batch,
    groups: batch.groups.filter(keep),
    commands: batch.commands.filter(keep),
    records: batch.records.filter(keep),
  }
}

export const unavailable = (): Refusal =>
  new Refusal(
    'database_unavailable',
    'the database is away or too slow; the write may or may not have happened: repeat it with the same Idempotency-Key',
  )

/** The answer of a group that needed no locked look: all its runs were made. */
export const madeAll = (group: CreateGroup): GroupAnswer => ({
  group_id: group.group_id,
  runs: group.members.map(({ run_id }) => ({ run_id, existing: false })),
})

/** Takes items from the front as long as their sizes fit, and at least one. */
export function takeUpTo<T>(queue: T[], most: number, sizeOf: (item: T) => number): T[] {
  let size = 0
  let count = 0
  while (count < queue.length && (count === 0 || size + sizeOf(queue[count] as T) <= most)) {
    size += sizeOf(queue[count] as T)
    count += 1
  }
  return queue.splice(0, count)
}

export function rejectAll(items: { reject(error: Error): void }[]): void {
  for (const item of items) item.reject(unavailable())
}

/** A write whose caller waits for so long. After that it may be written all the same: the caller is told that nobody knows. */
export function patientItem<T>(draft: T, weight: number, patienceMs: number, now: number) {
  const { promise: answered, resolve, reject } = Promise.withResolvers<GroupAnswer | undefined>()
  const patience = setTimeout(() => reject(unavailable()), patienceMs)
  const item: Item<T> = {
    draft,
    weight,
    deadline: now + patienceMs,
    resolve: (answer) => {
      clearTimeout(patience)
      resolve(answer)
    },
    reject: (error) => {
      clearTimeout(patience)
      reject(error)
    },
  }
  return { item, answered }
}

/**
 * Callers do not wait for ever: what is past its deadline, or all of it, is taken out of the batch, and so out of the retries.
 * It may have been written.
 */
export function dropImpatient(batch: Batch, now: number, all: boolean): void {
  const impatient = <T>(item: Item<T>): boolean => all || item.deadline < now
  rejectAll(batch.groups.filter(impatient))
  rejectAll(batch.commands.filter(impatient))
  batch.groups = batch.groups.filter((item) => !impatient(item))
  batch.commands = batch.commands.filter((item) => !impatient(item))
}
