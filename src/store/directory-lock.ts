import { randomUUID } from 'node:crypto'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { kill, pid } from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { StartError } from '../errors.ts'

/** Says who takes the directory: pid, time of its start (Linux; elsewhere `x`), and a part that makes it unique. */
const LOCK_NAME = /^lock-(\d+)-(\d+|x)-[\da-f]+$/

const TRIES = 8
/** Longest pause between two tries, in milliseconds. */
const PAUSE_MS = 60

/**
 * Takes the directory for this process, until it calls the returned function or dies. @throws when a living process
 * has it. A lock of a dead process is taken over: its death is proven, so nobody has to wait for a lease.
 *
 * Each process writes a lock of its own first and looks for others then. Of two that do so at once at least one sees
 * the other; whoever sees a living one takes its own lock back. One common lock file could not do this: it can be
 * read before it is written, and removed as stale when it has just been replaced.
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const name = `lock-${pid}-${(await startOf(pid)) ?? 'x'}-${randomUUID().slice(0, 8)}`
  const path = join(directory, name)
  let owner = 0
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    await writeFile(path, '', { mode: 0o600 })
    const other = await livingOther(directory, name)
    if (other === undefined) return async () => rm(path, { force: true })
    await rm(path, { force: true })
    owner = other
    // It may be trying as we do: the pauses differ, so that one of us finds itself alone.
    await delay(Math.random() * PAUSE_MS)
  }
  throw new StartError(
    `${directory} is in use by process ${owner}: one runlane process per data directory`,
  )
}

/** The pid of a living process that has a lock here; locks of dead ones are removed. */
async function livingOther(directory: string, mine: string): Promise<number | undefined> {
  for (const name of await readdir(directory)) {
    const [, owner, started] = LOCK_NAME.exec(name) ?? []
    if (owner === undefined || name === mine) continue
    if (await isAlive(Number(owner), started === 'x' ? null : (started ?? null)))
      return Number(owner)
    await rm(join(directory, name), { force: true })
  }
  return undefined
}

/** A process is told apart from a later one that got the same pid by the time it started. */
async function isAlive(owner: number, ownerStarted: string | null): Promise<boolean> {
  const started = await startOf(owner)
  if (started !== null || ownerStarted !== null) return started === ownerStarted
  try {
    kill(owner, 0)
    return true
  } catch {
    return false
  }
}

/** Field 22 of /proc/<pid>/stat, start time in clock ticks since boot; null where there is no such process (or /proc). */
async function startOf(owner: number): Promise<string | null> {
  try {
    const text = await readFile(`/proc/${owner}/stat`, 'utf8')
    // The second field is the command in parentheses and may hold spaces.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    // A zombie is dead but not yet reaped.
    return fields[0] === 'Z' ? null : (fields[19] ?? null)
  } catch {
    return null
  }
}
