import { readdirSync, readFileSync } from 'node:fs'
import type { Sql } from 'postgres'

/** Clock ticks per second of /proc. */
const TICKS = 100

/** CPU seconds (user and system) that a process and its children have used so far. */
export function cpuSeconds(pid: number): number {
  let ticks = ownTicks(pid)
  for (const name of readdirSync('/proc')) {
    if (/^\d+$/.test(name) && parentOf(Number(name)) === pid) ticks += ownTicks(Number(name))
  }
  return ticks / TICKS
}

/** Fields of /proc/<pid>/stat behind the command: state is 0, ppid 1, utime 11, stime 12, of waited-for children 13, 14. */
function statOf(pid: number): string[] {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return []
  }
}

const parentOf = (pid: number): number => Number(statOf(pid)[1] ?? 0)
const ownTicks = (pid: number): number =>
  statOf(pid)
    .slice(11, 15)
    .reduce((sum, field) => sum + Number(field), 0)

/** What the database has done so far. */
export interface DatabaseWork {
  commits: number
  rows: number
  walBytes: number
  statements: number
}

export async function databaseWork(sql: Sql): Promise<DatabaseWork> {
  await sql`select pg_stat_force_next_flush()`
  const [row] = await sql<{ commits: number; rows: number; wal: number; statements: number }[]>`
    select xact_commit::float8 as commits, (tup_inserted + tup_updated + tup_deleted)::float8 as rows,
      (pg_current_wal_lsn() - '0/0'::pg_lsn)::float8 as wal,
      (select coalesce(sum(calls), 0)::float8 from pg_stat_statements where toplevel) as statements
    from pg_stat_database where datname = current_database()`
  return {
    commits: row?.commits ?? 0,
    rows: row?.rows ?? 0,
    walBytes: row?.wal ?? 0,
    statements: row?.statements ?? 0,
  }
}

/** The value below which a share of the samples lies. */
export function percentile(samples: number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}
