import { recordAudit } from './audit.ts'
import type { Sql } from './database.ts'
import type { AuditDraft } from './flush.ts'
import { keepRequest, type RequestKey } from './request-keys.ts'
import type { RunRow, RunStatus } from './rows.ts'
import { fitting, type RunFilter, unknownCallsOf } from './runs.ts'

/** What is done to many runs. */
export type BulkAction = 'cancel' | 'recycle' | 'resume'

export interface BulkFilter extends Omit<RunFilter, 'limit'> {
  run_ids?: string[] | undefined
  /** Nobody else's runs: they are as if they were not there. */
  created_by?: string | undefined
}

/** One that is named and that nobody knows has no status. */
export interface BulkRun {
  run_id: string
  status: RunStatus | null
}

/** Runs that the action can be about: of a filter alone, nobody wants to hear of all that ended long ago. */
const concerned = (sql: Sql, action: BulkAction) =>
  ({
    cancel: sql`and r.ended_at is null`,
    recycle: sql`and r.ended_at is null and r.stuck_reason is not null`,
    resume: sql`and r.status in ('failed', 'timed_out')`,
  })[action]

/** Where the runs of a bulk action are, and which they are. Those that are named are all meant, whatever can be done. */
const chosen = (sql: Sql, action: BulkAction, { run_ids, created_by, ...filter }: BulkFilter) => {
  const own = created_by === undefined ? sql`` : sql`and r.created_by = ${created_by}`
  return run_ids === undefined
    ? sql`from runlane.agent_runs r where true ${own} ${concerned(sql, action)} ${fitting(sql, filter)}`
    : sql`from (select distinct unnest(${run_ids}::text[]) collate "C" as run_id) as i
        left join (select * from runlane.agent_runs r where true ${own}) as r using (run_id)
        where (r.run_id is null or (true ${fitting(sql, filter)}))`
}

/** Newest first. */
export async function bulkRunsOf(
  sql: Sql,
  action: BulkAction,
  filter: BulkFilter,
  limit: number,
): Promise<BulkRun[]> {
  return sql<BulkRun[]>`
    select run_id, r.status ${chosen(sql, action, filter)} order by run_id desc limit ${limit}`
}

/** What says whether a run can be resumed. */
type ResumeRow = Pick<
  RunRow,
  'status' | 'checkpoint_type' | 'error_code' | 'parent_run_id' | 'detached'
> & { unknown_calls: string[] }

/** The first of the runs that there are, as far as a resume asks for them. */
export async function resumesOf(sql: Sql, filter: BulkFilter, limit: number): Promise<ResumeRow[]> {
  return sql<ResumeRow[]>`
    select r.status, r.checkpoint_type, r.error_code, r.parent_run_id, r.detached, ${unknownCallsOf(sql)} as unknown_calls
    ${chosen(sql, 'resume', filter)} and r.run_id is not null order by r.run_id desc limit ${limit}`
}

/** The first of the runs, and how many there are of each status, as of one moment. */
export async function previewBulk(
  sql: Sql,
  action: BulkAction,
  filter: BulkFilter,
  limit: number,
): Promise<{ first: BulkRun[]; by_status: Partial<Record<RunStatus, number>> }> {
  return sql.begin('isolation level repeatable read read only', async (transaction) => {
    const read = transaction as unknown as Sql
    const rows = await read<{ status: RunStatus | null; runs: number }[]>`
      select r.status, count(*)::int as runs ${chosen(read, action, filter)} group by r.status order by r.status`
    const by_status: Partial<Record<RunStatus, number>> = {}
    for (const { status, runs } of rows) if (status !== null) by_status[status] = runs
    return { first: await bulkRunsOf(read, action, filter, limit), by_status }
  })
}

/**
 * Writes what was ordered before any of it is done: the audit row and, under a key, which runs it is about, so that a
 * repetition goes on with the same ones. False: another request has the key.
 */
export async function orderBulk(
  sql: Sql,
  audit: AuditDraft,
  key: RequestKey | undefined,
  plan: string,
): Promise<boolean> {
  return sql.begin(async (transaction) => {
    if (key && !(await keepRequest(transaction, key, plan))) return false
    await recordAudit(transaction, audit)
    return true
  })
}
