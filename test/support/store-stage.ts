import { Ledger } from '../../src/runtime/run/ledger.ts'
import type { RunMessage } from '../../src/runtime/run/messages.ts'
import { commitFlush } from '../../src/store/commits.ts'
import {
  type Database,
  type DatabaseTarget,
  openDatabase,
  type Sql,
} from '../../src/store/database.ts'
import type { Flush, FlushAnswer, RunDraft, RunRecord } from '../../src/store/flush.ts'
import { migrate } from '../../src/store/migrate.ts'
import { registerNode } from '../../src/store/nodes.ts'
import type { HostedRow } from '../../src/store/rows.ts'
import { loadHostedMany } from '../../src/store/runs.ts'
import { eventually } from './eventually.ts'
import { flushOf, groupOf } from './run-drafts.ts'

/** A database with connections of two writers, and one to look on. */
export interface StoreStage {
  readonly reads: Sql
  readonly database: Database
  /** A node of its own with a lease of an hour. */
  node(leaseMs?: number): Promise<number>
  commit(parts: Partial<Flush>): Promise<FlushAnswer>
  create(...drafts: RunDraft[]): Promise<void>
  claim(epoch: number, limit?: number): Promise<HostedRow[]>
  row(runId: string): Promise<HostedRow>
  rows(drafts: readonly { run_id: string }[]): Promise<HostedRow[]>
  /** What the chart decides on the row as it is now. */
  record(runId: string, ...messages: RunMessage[]): Promise<RunRecord>
  /**
   * The second flush is sent while the first one has been carried out and not committed, and is seen to wait for it.
   * On the embedded database, whose connections share one session, it follows the first.
   */
  inStep(first: Partial<Flush>, second: Partial<Flush>): Promise<[FlushAnswer, FlushAnswer]>
  close(): Promise<void>
}

export async function storeStage(target: DatabaseTarget): Promise<StoreStage> {
  const database = openDatabase(target)
  const { reads } = database
  const [one, other] = [openDatabase(target), openDatabase(target)]
  await migrate(reads)
  const commit: StoreStage['commit'] = (parts) => commitFlush(reads, flushOf(parts))
  const rows: StoreStage['rows'] = (drafts) =>
    loadHostedMany(
      reads,
      drafts.map(({ run_id }) => run_id),
    )
  const row: StoreStage['row'] = async (run_id) => {
    const [found] = await rows([{ run_id }])
    if (!found) throw new Error(`there is no run ${run_id}`)
    return found
  }

  return {
    reads,
    database,
    node: (leaseMs = 3_600_000) => registerNode(reads, { nodeId: 'test', version: '0', leaseMs }),
    commit,
    create: async (...drafts) => {
      await commit({ groups: [groupOf(...drafts)] })
    },
    claim: async (epoch, limit = 100) => (await commit({ claim: { epoch, limit } })).claimed,
    row,
    rows,
    record: async (runId, ...messages) => recordOn(await row(runId), ...messages),
    inStep: async (first, second) => {
      if (!target.notifies) return [await commit(first), await commit(second)]
      return lockStep(reads, one.commits.sql, flushOf(first), other.commits.sql, flushOf(second))
    },
    close: async () => {
      await Promise.all([one.close(), other.close(), database.close()])
    },
  }
}

/** @throws when the chart does not accept one of the messages. */
export function recordOn(row: HostedRow, ...messages: RunMessage[]): RunRecord {
  const ledger = Ledger.restore(row)
  for (const message of messages) {
    if (!ledger.decide(message)) throw new Error(`${message.type} is not accepted in ${row.status}`)
  }
  return ledger.take()
}

async function lockStep(
  observer: Sql,
  one: Sql,
  first: Flush,
  other: Sql,
  second: Flush,
): Promise<[FlushAnswer, FlushAnswer]> {
  let waiting: Promise<FlushAnswer> | undefined
  const answer = await one.begin(async (transaction) => {
    const decided = await commitFlush(transaction as unknown as Sql, first)
    waiting = commitFlush(other, second)
    waiting.catch(() => {})
    await eventually(() => anyWaiting(observer), { message: 'the second flush to wait' })
    return decided
  })
  if (!waiting) throw new Error('the second flush was not sent')
  return [answer as FlushAnswer, await waiting]
}

export async function anyWaiting(observer: Sql): Promise<boolean> {
  const [found] = await observer<{ n: number }[]>`
    select count(*)::int as n from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and wait_event = 'advisory'`
  return (found?.n ?? 0) > 0
}
