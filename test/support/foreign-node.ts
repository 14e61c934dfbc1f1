import type postgres from 'postgres'
import type { RunMessage } from '../../src/runtime/run/messages.ts'
import type { RunDraft, RunRecord } from '../../src/store/flush.ts'
import { runDraft } from './run-drafts.ts'
import type { StoreStage } from './store-stage.ts'

/** A node that holds its lease and does nothing else: as it is seen from others while its process is frozen. */
export interface ForeignNode {
  readonly epoch: number
  /** A run that it has claimed; the hosted row is in the database. */
  claims(draft?: Partial<RunDraft>): Promise<string>
  /** What it would write next. */
  intends(runId: string, ...messages: RunMessage[]): Promise<RunRecord>
  writes(runId: string, ...messages: RunMessage[]): Promise<void>
  /** Whether the database takes it. */
  tries(record: RunRecord): Promise<boolean>
  /** Has vouched for these runs an hour hence, as it has at first, or (`silences`) an hour ago. */
  vouches(runIds: string[]): Promise<void>
  silences(runIds: string[]): Promise<void>
}

export async function foreignNode(store: StoreStage, sql: postgres.Sql): Promise<ForeignNode> {
  const epoch = await store.node()
  const tries: ForeignNode['tries'] = async (record) => {
    const { accepted } = await store.commit({ records: [record] })
    return accepted === null
  }
  const heard = async (runIds: string[], hours: number): Promise<void> => {
    await sql`update runlane.agent_runs set last_heartbeat_at = runlane.now() + ${hours} * interval '1 hour'
      where run_id = any (${runIds})`
  }
  return {
    epoch,
    claims: async (changes = {}) => {
      const input = { steps: [{ think: 60_000 }] }
      const draft = runDraft({ input, priority: 1_000_000, ...changes })
      // Of a queue that nobody else ever sees open, so that no other node is faster.
      await sql`insert into runlane.queues (name, paused) values ('foreign', true) on conflict do nothing`
      await store.create({ ...draft, queue: 'foreign' })
      const claimed = await sql.begin(async (transaction) => {
        await transaction`update runlane.queues set paused = false where name = 'foreign'`
        const [row] = await transaction<{ run_id: string }[]>`
          select runlane.commit(${transaction.json({ claim: { epoch, limit: 1 } })})
            -> 'claimed' -> 0 ->> 'run_id' as run_id`
        await transaction`update runlane.queues set paused = true where name = 'foreign'`
        return row?.run_id
      })
      await heard([draft.run_id], 1)
      if (claimed !== draft.run_id) throw new Error('the foreign node has not got its run')
      return draft.run_id
    },
    intends: (runId, ...messages) => store.record(runId, ...messages),
    writes: async (runId, ...messages) => {
      if (!(await tries(await store.record(runId, ...messages)))) throw new Error('it was refused')
    },
    tries,
    vouches: (runIds) => heard(runIds, 1),
    silences: (runIds) => heard(runIds, -1),
  }
}
