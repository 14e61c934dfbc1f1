import type { Sql } from './database.ts'
import type { ChildReport } from './rows.ts'

/** A delegation of a run whose report is not recorded, so its code was never given it. */
export interface OpenDelegation {
  tool_call_id: string
  child_run_id: string
  /**
   * Its child ends only because the run that delegated it has ended: when that is resumed, the delegation counts as not
   * made. Every other child goes on, or its own end is what is reported.
   */
  cut_off: boolean
  /** What became of a child that is cut off; null while it is not over. */
  report: ChildReport | null
}

/**
 * In the order in which they were made. A child ends with its parent if it is cancelled and nobody has asked for that (it
 * was ended by force from above, or told to end as its parent failed), or if its attempt was lost as its parent's was.
 */
export async function openDelegations(sql: Sql, runId: string): Promise<OpenDelegation[]> {
  return sql<OpenDelegation[]>`
    select o.tool_call_id, o.child_run_id, o.cut_off, case when o.cut_off then runlane.child_report(o.child_run_id) end as report
    from (
      select t.position, t.tool_call_id, c.run_id as child_run_id,
        (c.status = 'cancelled' or c.ended_at is null and p.status = 'failed')
          and not exists (select from runlane.run_commands m where m.run_id = c.run_id
            and m.kind in ('cancel', 'stop', 'interrupt') and m.status = 'applied')
        or c.status = 'timed_out' and c.error_code = 'attempt_lost' and p.status = 'timed_out' as cut_off
      from runlane.agent_tool_results t join runlane.agent_runs p using (run_id)
      join runlane.agent_runs c on c.run_id = t.input ->> 'child_run_id'
      where t.run_id = ${runId} and t.kind = 'delegate' and t.outcome = 'started'
    ) as o order by o.position`
}
