import type { Sql } from './database.ts'

export interface NodeRow {
  node_id: string
  epoch: number
  status: 'serving' | 'draining' | 'stopped' | 'dead'
  version: string
  started_at: string
  last_seen_at: string
  active_runs: number
  /** Why it ends nobody at present although it would: too many of a class at once. */
  systemic: string | null
}

/** Registers this process under a new epoch: the fencing token of everything that it will own. */
export async function registerNode(
  sql: Sql,
  node: { nodeId: string; version: string; leaseMs: number },
): Promise<number> {
  const [row] = await sql<{ epoch: number }[]>`
    insert into runlane.nodes (node_id, version, started_at, last_seen_at, lease_until)
    select ${node.nodeId}, ${node.version}, n.at, n.at, n.at + ${node.leaseMs} * interval '1 millisecond'
    from (select runlane.now() as at) as n returning epoch`
  if (!row) throw new Error('the node could not be registered')
  return row.epoch
}

/** Renews the lease by the database's clock. False: this epoch was declared dead and can never own anything again. */
export async function renewLease(sql: Sql, epoch: number, leaseMs: number): Promise<boolean> {
  const rows = await sql`
    update runlane.nodes set last_seen_at = runlane.now(),
      lease_until = runlane.now() + ${leaseMs} * interval '1 millisecond'
    where epoch = ${epoch} and status in ('serving', 'draining') returning epoch`
  return rows.length === 1
}

export async function setNodeStatus(
  sql: Sql,
  epoch: number,
  status: 'draining' | 'stopped',
): Promise<void> {
  await sql`update runlane.nodes set status = ${status} where epoch = ${epoch} and status in ('serving', 'draining')`
}

/** True when some node is past its lease, or gone, and still owns runs or is not yet marked dead. */
export async function anyNodeLost(sql: Sql, epoch: number): Promise<boolean> {
  const [row] = await sql<{ lost: boolean }[]>`
    select exists (select from runlane.nodes where status in ('serving', 'draining') and epoch <> ${epoch}
        and lease_until < runlane.now())
      or exists (select from runlane.agent_runs r join runlane.nodes n on n.epoch = r.owner_epoch
        where r.owner_epoch is not null and n.status in ('dead', 'stopped')) as lost`
  return row?.lost ?? false
}

/** A node that has lost runs to another one. */
interface FormerOwner {
  node_id: string
  epoch: number
  runs: number
  /** The first ten of them. */
  run_ids: string[]
}

/** From whom these runs were adopted, as the commit that did it has told. */
export async function formerOwners(
  sql: Sql,
  runIds: string[],
  adopter: number,
): Promise<FormerOwner[]> {
  return sql<FormerOwner[]>`
    select n.node_id, n.epoch, count(*)::int as runs, (array_agg(e.run_id order by e.run_id))[1:10] as run_ids
    from runlane.agent_events e join runlane.nodes n on n.epoch = (e.payload ->> 'epoch')::bigint
    where e.run_id = any (${runIds}) and e.event_type = 'lease_lost'
      and (e.payload ->> 'adopted_by')::bigint = ${adopter}
    group by n.epoch, n.node_id order by n.epoch`
}

/** Marks the runs of this node as alive; no index is touched, so a pass over some hundred rows stays cheap. */
export async function beatRuns(sql: Sql, epoch: number): Promise<void> {
  await sql`update runlane.agent_runs set last_heartbeat_at = runlane.now() where owner_epoch = ${epoch}`
}

export async function listNodes(sql: Sql): Promise<NodeRow[]> {
  return sql<NodeRow[]>`
    select n.node_id, n.epoch, n.status, n.version, n.started_at, n.last_seen_at, n.systemic,
      (select count(*)::int from runlane.agent_runs r where r.owner_epoch = n.epoch) as active_runs
    from runlane.nodes n where n.status in ('serving', 'draining') order by n.epoch`
}

/** Those too that stopped or died within a day; newest first, at most 1,000. */
export async function listAllNodes(sql: Sql): Promise<NodeRow[]> {
  return sql<NodeRow[]>`
    select n.node_id, n.epoch, n.status, n.version, n.started_at, n.last_seen_at, n.systemic,
      (select count(*)::int from runlane.agent_runs r where r.owner_epoch = n.epoch) as active_runs
    from runlane.nodes n
    where n.status in ('serving', 'draining') or n.last_seen_at > runlane.now() - interval '1 day'
    order by n.epoch desc limit 1000`
}

/**
 * Records which chart this code runs, and answers the versions that stored snapshots of unfinished runs name but this
 * code cannot read, with one run each.
 */
export async function recordMachine(
  sql: Sql,
  chart: { machine: string; version: number; hash: string },
): Promise<{
  storedHash: string
  unreadable: { version: number; run_id: string; runs: number }[]
}> {
  await sql`insert into runlane.machines (machine, version, hash, recorded_at)
    values (${chart.machine}, ${chart.version}, ${chart.hash}, runlane.now()) on conflict do nothing`
  const [stored] = await sql<{ hash: string }[]>`
    select hash from runlane.machines where machine = ${chart.machine} and version = ${chart.version}`
  // Earlier snapshots are upgraded as they are read. Later ones exist only where a later version has run.
  const others = await sql`
    select from runlane.machines where machine = ${chart.machine} and version > ${chart.version} limit 1`
  if (others.length === 0) return { storedHash: stored?.hash ?? chart.hash, unreadable: [] }
  const unreadable = await sql<{ version: number; run_id: string; runs: number }[]>`
    select (chart ->> 'version')::int as version, min(run_id) as run_id, count(*)::int as runs
    from runlane.agent_runs
    where status not in ('completed', 'cancelled') and (chart ->> 'version')::int > ${chart.version}
    group by 1 order by 1`
  return { storedHash: stored?.hash ?? chart.hash, unreadable }
}
