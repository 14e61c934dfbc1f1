import type { Json } from '../json.ts'
import { type CancelFacts, cancelFacts } from './cancels.ts'
import { type Sql, takeRows } from './database.ts'
import {
  isTerminal,
  type CallRow,
  type ChildReport,
  type CommandRow,
  type HostedRow,
  type InboxRow,
  type Origin,
  type RunRow,
  type WaitpointRow,
  type RunStatus,
} from './rows.ts'

/** What only the host of a run reads: the chart is by far the longest part of a row, and a list may have a thousand. */
type Inner =
  | ('chart' | 'line_events' | 'line_since' | 'version' | 'record_id')
  | ('clock' | 'clock_at')

/** A run as callers see it: the row, its metadata, and who hosts it. */
export interface RunView extends Omit<RunRow, Inner> {
  metadata: Record<string, Json>
  node_id: string | null
  age_ms: number
  unknown_calls: string[]
  orphan: boolean
  traceparent: string | null
  forked_from: Origin | null
}

/** A run as lists have it. */
export type ListedRun = Omit<
  RunView,
  | 'lane_position'
  | 'holds_lane'
  | 'run_at'
  | 'owner_epoch'
  | 'last_sequence'
  | 'stuck_since'
  | 'turn_extended_ms'
  | 'status_since'
>

/** A run as it is shown alone. */
export interface WholeRun extends RunView {
  input: Json
  output: Json
  cancel: CancelFacts | null
}

export interface RunFilter {
  status?: string[] | undefined
  agent?: string | undefined
  conversation_id?: string | undefined
  queue?: string | undefined
  lane_key?: string | undefined
  stuck?: boolean | undefined
  orphan?: boolean | undefined
  q?: string | undefined
  since?: string | undefined
  cursor?: string | undefined
  limit: number
}

/** The chart says so of active runs; no column, so that the flag is never other than the chart. */
export const isOrphan = (sql: Sql) =>
  sql`(r.owner_epoch is not null and coalesce((r.chart -> 'context' -> 'orphan')::boolean, false))`

/** Calls that a resume must not make again by itself: started, without an outcome, and unsafe. */
export const unknownCallsOf = (sql: Sql) => sql`
  array(select t.tool_call_id from runlane.agent_tool_results t
    where t.run_id = r.run_id and t.outcome = 'started' and t.kind = 'tool' and t.effects = 'unsafe' order by t.position)`

/** What lists show of a run; each column counts a thousand times. */
export const listedColumns = (sql: Sql) => sql`
  r.run_id, r.conversation_id, r.parent_run_id, r.root_run_id, r.agent, r.surface, r.created_by, r.owner, r.status, r.detail,
  r.lane_key, r.queue, r.priority, r.attempt, r.cancel_requested_at, r.phase, r.saying, r.tool, r.error_code, r.error_message,
  r.checkpoint_id, r.checkpoint_type, r.stuck_reason, r.children, r.detached, r.model, r.input_tokens, r.output_tokens,
  r.created_at, r.started_at, r.ended_at, r.last_heartbeat_at, r.last_progress_at,
  p.metadata, p.options ->> 'traceparent' as traceparent, p.options -> 'forked_from' as forked_from,
  (select n.node_id from runlane.nodes n where n.epoch = r.owner_epoch) as node_id, ${isOrphan(sql)} as orphan,
  (extract(epoch from coalesce(r.ended_at, runlane.now()) - r.created_at) * 1000)::float8 as age_ms,
  case when r.status in ('failed', 'timed_out') then ${unknownCallsOf(sql)} else '{}' end as unknown_calls`

const viewColumns = (sql: Sql) => sql`
  ${listedColumns(sql)}, r.lane_position, r.holds_lane, r.run_at, r.owner_epoch, r.last_sequence, r.stuck_since,
  r.turn_extended_ms, r.status_since`

const isOver = (status: string): boolean => isTerminal(status as RunStatus)

/** The conditions of a filter on `agent_runs r`, each with its `and` before it. */
export function fitting(sql: Sql, filter: Omit<RunFilter, 'limit'>) {
  const { status, agent, conversation_id, queue, lane_key, stuck, orphan, q, since, cursor } =
    filter
  const pattern = q === undefined ? '' : `%${q.replaceAll(/[\\%_]/g, (special) => `\\${special}`)}%`
  return sql`
      ${status === undefined ? sql`` : sql`and r.status = any (${status})`}
      ${status === undefined || status.some(isOver) ? sql`` : sql`and r.ended_at is null`}
      ${agent === undefined ? sql`` : sql`and r.agent = ${agent}`}
      ${conversation_id === undefined ? sql`` : sql`and r.conversation_id = ${conversation_id}`}
      ${queue === undefined ? sql`` : sql`and r.queue = ${queue}`}
      ${lane_key === undefined ? sql`` : sql`and r.lane_key = ${lane_key}`}
      ${orphan === undefined ? sql`` : sql`and ${isOrphan(sql)} = ${orphan}`}
      ${stuck === undefined ? sql`` : sql`and (r.stuck_reason is not null) = ${stuck}`}
      ${since === undefined ? sql`` : sql`and r.created_at >= ${since}::timestamptz`}
      ${
        q === undefined
          ? sql``
          : sql`and (r.run_id ilike ${pattern} or r.conversation_id ilike ${pattern}
        or r.agent ilike ${pattern} or r.owner ilike ${pattern} or r.error_message ilike ${pattern})`
      }
      ${cursor === undefined ? sql`` : sql`and r.run_id < ${cursor}`}`
}

/** Newest first; the cursor is the last run id of the page before. */
export async function listRuns(sql: Sql, filter: RunFilter): Promise<ListedRun[]> {
  return takeRows(sql<ListedRun[]>`
    select ${listedColumns(sql)} from runlane.agent_runs r join runlane.agent_run_payloads p using (run_id)
    where true ${fitting(sql, filter)}
    order by r.run_id desc limit ${filter.limit}`)
}

/** The runs that this one delegated, newest first. */
export async function listChildren(
  sql: Sql,
  parentRunId: string,
  cursor: string | undefined,
  limit: number,
): Promise<ListedRun[]> {
  return takeRows(sql<ListedRun[]>`
    select ${listedColumns(sql)} from runlane.agent_runs r join runlane.agent_run_payloads p using (run_id)
    where r.parent_run_id = ${parentRunId} ${cursor === undefined ? sql`` : sql`and r.run_id < ${cursor}`}
    order by r.run_id desc limit ${limit}`)
}

export interface JournalRow {
  journal_key: string
  content: Record<string, Json>
  run_id: string
  updated_at: string
}

export async function findJournal(sql: Sql, journalKey: string): Promise<JournalRow | undefined> {
  const [row] = await sql<JournalRow[]>`
    select journal_key, content, run_id, updated_at from runlane.agent_run_journals where journal_key = ${journalKey}`
  return row
}

export async function findRun(sql: Sql, runId: string): Promise<WholeRun | undefined> {
  const [row] = await sql<WholeRun[]>`
    select ${viewColumns(sql)}, p.input, p.output, ${cancelFacts(sql)} as cancel
    from runlane.agent_runs r join runlane.agent_run_payloads p using (run_id) where r.run_id = ${runId}`
  return row
}

/** The active root run of a conversation, else its newest unfinished one, else its newest. */
export async function findAgentRun(sql: Sql, conversationId: string): Promise<RunView | undefined> {
  const [row] = await sql<RunView[]>`
    select ${viewColumns(sql)} from runlane.agent_runs r join runlane.agent_run_payloads p using (run_id)
    where r.run_id = coalesce(
      (select a.run_id from runlane.agent_runs a where a.conversation_id = ${conversationId} and a.ended_at is null
        and a.parent_run_id is null order by a.owner_epoch is null, a.run_id desc limit 1),
      (select b.run_id from runlane.agent_runs b where b.conversation_id = ${conversationId} and b.parent_run_id is null
        order by b.run_id desc limit 1))`
  return row
}

export async function stuckRunIds(sql: Sql): Promise<string[]> {
  const rows = await sql<{ run_id: string }[]>`
    select run_id from runlane.agent_runs where stuck_reason is not null and ended_at is null order by run_id`
  return rows.map((row) => row.run_id)
}

/** Unfinished root runs of a conversation, newest first. */
export async function openRootsOf(sql: Sql, conversationId: string): Promise<RunView[]> {
  return sql<RunView[]>`
    select ${viewColumns(sql)} from runlane.agent_runs r join runlane.agent_run_payloads p using (run_id)
    where r.conversation_id = ${conversationId} and r.ended_at is null and r.parent_run_id is null
    order by r.run_id desc limit 1000`
}

/** These runs in the order asked for. */
export async function findRuns(sql: Sql, runIds: string[]): Promise<RunView[]> {
  return sql<RunView[]>`
    select ${viewColumns(sql)} from unnest(${runIds}::text[]) with ordinality as i (run_id, nth)
    join runlane.agent_runs r using (run_id) join runlane.agent_run_payloads p using (run_id) order by i.nth`
}

/** The row with its payloads, to decide on it or to host it. */
export async function loadHosted(sql: Sql, runId: string): Promise<HostedRow | undefined> {
  const [row] = await sql<
    { runs: HostedRow[] }[]
  >`select runlane.hosted_runs(array[${runId}]) as runs`
  return row?.runs[0]
}

/** Runs that the database gives to this node; those it does not know were claimed by a commit whose reply was lost. */
export async function ownedRunIds(sql: Sql, epoch: number): Promise<string[]> {
  const rows = await sql<
    { run_id: string }[]
  >`select run_id from runlane.agent_runs where owner_epoch = ${epoch}`
  return rows.map((row) => row.run_id)
}

export async function loadHostedMany(sql: Sql, runIds: string[]): Promise<HostedRow[]> {
  const [row] = await sql<{ runs: HostedRow[] }[]>`select runlane.hosted_runs(${runIds}) as runs`
  return row?.runs ?? []
}

/** The envelope of a run in the order in which the agent made the calls. */
export async function loadCalls(sql: Sql, runId: string): Promise<CallRow[]> {
  return sql<
    CallRow[]
  >`select * from runlane.agent_tool_results where run_id = ${runId} order by position`
}

export async function listWaitpoints(sql: Sql, runId: string): Promise<WaitpointRow[]> {
  return sql<WaitpointRow[]>`
    select token_id, run_id, kind, name, tool_call_id, prompt, schema, status, created_at, expires_at
    from runlane.waitpoints where run_id = ${runId} order by token_id`
}

export async function findCommand(sql: Sql, commandId: string): Promise<CommandRow | undefined> {
  const [row] = await sql<CommandRow[]>`
    select command_id, run_id, kind, payload, status, outcome from runlane.run_commands where command_id = ${commandId}`
  return row
}

/** What this caller has asked for under this key. */
export async function findKeyedCommand(
  sql: Sql,
  requestedBy: string,
  key: string,
): Promise<CommandRow | undefined> {
  const [row] = await sql<CommandRow[]>`
    select command_id, run_id, kind, payload, status, outcome from runlane.run_commands
    where requested_by = ${requestedBy} and payload ? 'idempotency_key' and payload ->> 'idempotency_key' = ${key}`
  return row
}

/** Runs that have mail and that this node owns or nobody owns, the oldest mail first. Reports wait until their run is active. */
export async function runsWithMail(sql: Sql, epoch: number): Promise<string[]> {
  const rows = await sql<{ run_id: string }[]>`
    select i.run_id from runlane.run_inbox i join runlane.agent_runs r using (run_id)
    where i.due and (r.owner_epoch = ${epoch}
      or (r.owner_epoch is null and (i.kind <> 'report' or r.ended_at is not null))) order by i.id limit 500`
  return [...new Set(rows.map(({ run_id }) => run_id))]
}

/** Its mail; of a signal, that it is there. */
export async function inboxOf(sql: Sql, runId: string): Promise<InboxRow[]> {
  return sql<InboxRow[]>`
    select run_id, kind, name, dedupe_key, case kind when 'signal' then payload - 'data' else payload end as payload
    from runlane.run_inbox where run_id = ${runId} and due
    order by kind = 'signal', kind = 'report', id limit 100`
}

/** What became of a delegated run; undefined while it is not over. */
export async function loadReport(sql: Sql, childRunId: string): Promise<ChildReport | undefined> {
  const [row] = await sql<{ report: ChildReport | null }[]>`
    select runlane.child_report(${childRunId}) as report`
  return row?.report ?? undefined
}

/** Milliseconds until the next run_at in the line of coming runs; null when none waits for its time. */
export async function nextDueInMs(sql: Sql): Promise<number | null> {
  const [row] = await sql<{ due_in_ms: number | null }[]>`
    select (extract(epoch from min(run_at) - runlane.now()) * 1000)::float8 as due_in_ms
    from runlane.agent_runs where status = 'queued' and not holds_lane`
  return row?.due_in_ms ?? null
}

/** Whether a run_at has come, and whether a run could be claimed: what a poll asks before it bothers the commit lock. */
export async function whatWaits(sql: Sql): Promise<{ due: boolean; claimable: boolean }> {
  const [row] = await sql<{ due: boolean; claimable: boolean }[]>`
    select exists (select from runlane.agent_runs where status = 'queued' and holds_lane) as claimable,
      exists (select from runlane.agent_runs
        where status = 'queued' and not holds_lane and run_at <= runlane.now()) as due`
  return row ?? { due: false, claimable: false }
}

export async function knownQueues(sql: Sql): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`select name from runlane.queues order by name`
  return rows.map((row) => row.name)
}
