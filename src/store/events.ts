import type { Json } from '../json.ts'
import { type Sql, takeRows } from './database.ts'
import { type RunEventRow, type Visibility, VISIBILITIES, visibilityLevel } from './rows.ts'

/** Which events a reader asks for. */
export interface EventScope {
  run_id?: string | undefined
  conversation_id?: string | undefined
  visibility: Visibility
}

interface StoredEvent {
  id: number
  event_type: string
  run_id: string
  conversation_id: string
  created_by: string
  sequence: number
  visibility: number
  payload: Record<string, Json>
  created_at: string
}

/** Events after a cursor in id order. Ids are safe cursors: commit order equals id order (see `runlane.commit`). */
export async function readEvents(
  sql: Sql,
  scope: EventScope,
  afterId: number,
  limit: number,
): Promise<RunEventRow[]> {
  const rows = await takeRows(sql<StoredEvent[]>`
    select e.id, e.event_type, e.run_id, r.conversation_id, r.created_by, e.sequence, e.visibility, e.payload, e.created_at
    from runlane.agent_events e join runlane.agent_runs r using (run_id)
    where e.id > ${afterId} and e.visibility <= ${visibilityLevel(scope.visibility)}
      ${scope.run_id === undefined ? sql`` : sql`and e.run_id = ${scope.run_id}`}
      ${
        scope.conversation_id === undefined
          ? sql``
          : sql`and e.run_id in (select c.run_id from runlane.agent_runs c where c.conversation_id = ${scope.conversation_id})`
      }
    order by e.id limit ${limit}`)
  return rows.map(toEvent)
}

/** Events of one run after a sequence; gap-free at `internal`. */
export async function readRunEvents(
  sql: Sql,
  query: { run_id: string; afterSequence: number; visibility: Visibility; limit: number },
): Promise<RunEventRow[]> {
  const rows = await takeRows(sql<StoredEvent[]>`
    select e.id, e.event_type, e.run_id, r.conversation_id, r.created_by, e.sequence, e.visibility, e.payload, e.created_at
    from runlane.agent_events e join runlane.agent_runs r using (run_id)
    where e.run_id = ${query.run_id} and e.sequence > ${query.afterSequence}
      and e.visibility <= ${visibilityLevel(query.visibility)}
    order by e.sequence limit ${query.limit}`)
  return rows.map(toEvent)
}

/** The id before the first event after `sequence` of a run: turns a per-run cursor into a global one. */
export async function cursorOfSequence(sql: Sql, runId: string, sequence: number): Promise<number> {
  const [row] = await sql<{ id: number | null }[]>`
    select max(id) as id from runlane.agent_events where run_id = ${runId} and sequence <= ${sequence}`
  return row?.id ?? 0
}

export interface LogBounds {
  /** The highest event id that there is, or was; 0 while nothing has happened. */
  last: number
  /** The highest one that retention has deleted: a cursor before it may have missed something. */
  purged: number
}

export async function logBounds(sql: Sql): Promise<LogBounds> {
  const [row] = await sql<{ last: number | null; purged: number }[]>`
    select (select id from runlane.agent_events order by id desc limit 1) as last,
      (select event_id from runlane.purged) as purged`
  const purged = row?.purged ?? 0
  return { last: Math.max(row?.last ?? 0, purged), purged }
}

export interface CheckpointRow {
  checkpoint_id: string
  run_id: string
  type: string
  sequence: number
  created_at: string
}

export async function listCheckpoints(
  sql: Sql,
  runId: string,
  after: number,
  limit: number,
): Promise<CheckpointRow[]> {
  return sql<CheckpointRow[]>`
    select checkpoint_id, run_id, type, sequence, created_at from runlane.agent_checkpoints
    where run_id = ${runId} and sequence > ${after} order by sequence limit ${limit}`
}

export async function latestCheckpoint(
  sql: Sql,
  runId: string,
): Promise<CheckpointRow | undefined> {
  const [row] = await sql<CheckpointRow[]>`
    select checkpoint_id, run_id, type, sequence, created_at from runlane.agent_checkpoints
    where run_id = ${runId} order by sequence desc limit 1`
  return row
}

/** What came of a run after it was ended by force. */
export interface LateResult {
  at: string
  output: Json
}

/** Since its last end: the event that keeps it comes after the status that the run has now. */
export async function lateResult(sql: Sql, runId: string): Promise<LateResult | undefined> {
  const [row] = await sql<LateResult[]>`
    select e.created_at as at, e.payload -> 'output' as output from runlane.agent_events e
    where e.run_id = ${runId} and e.event_type = 'late_result' and e.sequence > (
      select s.sequence from runlane.agent_events s where s.run_id = ${runId} and s.event_type = 'run_status_changed'
      order by s.sequence desc limit 1)
    order by e.sequence desc limit 1`
  return row
}

/** The events that tell a run's attempts, oldest first, at most the first 10,000. */
export async function attemptHistory(sql: Sql, runId: string): Promise<RunEventRow[]> {
  const rows = await takeRows(sql<StoredEvent[]>`
    select e.id, e.event_type, e.run_id, '' as conversation_id, '' as created_by, e.sequence, e.visibility, e.payload,
      e.created_at
    from runlane.agent_events e
    where e.run_id = ${runId} and e.event_type in ('run_status_changed', 'run_resumed')
    order by e.sequence limit 10000`)
  return rows.map(toEvent)
}

/** The status changes of a run up to a sequence, oldest first, at most the latest 1,000. */
export async function statusHistory(
  sql: Sql,
  runId: string,
  until: number,
): Promise<RunEventRow[]> {
  const rows = await takeRows(sql<StoredEvent[]>`
    select e.id, e.event_type, e.run_id, '' as conversation_id, '' as created_by, e.sequence, e.visibility, e.payload,
      e.created_at
    from runlane.agent_events e
    where e.run_id = ${runId} and e.event_type = 'run_status_changed' and e.sequence <= ${until}
    order by e.sequence desc limit 1000`)
  return rows.map(toEvent).toReversed()
}

/** The sequence of a run's latest status change: no later one has come. */
export async function lastStatusSequence(sql: Sql, runId: string): Promise<number> {
  const [row] = await sql<{ sequence: number | null }[]>`
    select max(sequence) as sequence from runlane.agent_events
    where run_id = ${runId} and event_type = 'run_status_changed'`
  return row?.sequence ?? 0
}

const toEvent = (row: StoredEvent): RunEventRow => ({
  ...row,
  visibility: VISIBILITIES[row.visibility] ?? 'internal',
})
