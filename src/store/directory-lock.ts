import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { kill, pid } from 'node:process'
import { StartError } from '../errors.ts'

/** A process, told apart from a later one that got the same pid by the time it started (Linux; elsewhere null). */
interface Owner {
  pid: number
  started: string | null
}

/**
 * Takes the directory for this process, until it calls the returned function or dies. @throws when a living process
 * has it. A lock of a dead process is taken over: its death is proven, so nobody has to wait for a lease.
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const path = join(directory, 'lock')
  const mine = JSON.stringify({ pid, started: await startOf(pid) } satisfies Owner)
  for (let attempt = 0; attempt < 5; attempt += 1) {
    if (await writeNew(path, mine)) return async () => rm(path, { force: true })
    const text = await readFile(path, 'utf8').catch(() => null)
    if (text === null) continue
    const owner = parseOwner(text)
    if (owner && (await isAlive(owner))) {
      throw new StartError(
        `${directory} is in use by process ${owner.pid}: one runlane process per data directory`,
      )
    }
    await removeStale(path, text)
  }
  throw new StartError(`${directory} could not be locked: another process keeps taking it`)
}

async function writeNew(path: string, text: string): Promise<boolean> {
  try {
    await writeFile(path, text, { flag: 'wx', mode: 0o600 })
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}

/** Renaming is atomic: of two processes that found the same dead owner, one moves the file away, the other finds none. */
async function removeStale(path: string, staleText: string): Promise<void> {
  const aside = `${path}.${pid}`
  try {
    await rename(path, aside)
  } catch {
    return
  }
  const moved = await readFile(aside, 'utf8')
  // It was a fresh lock that the other process had just written: give it back.
  if (moved !== staleText) await writeNew(path, moved)
  await rm(aside, { force: true })
}

function parseOwner(text: string): Owner | null {
  try {
    const { pid: owner, started } = JSON.parse(text) as Owner
    return Number.isInteger(owner) ? { pid: owner, started: started ?? null } : null
  } catch {
    return null
  }
}

async function isAlive(owner: Owner): Promise<boolean> {
  const started = await startOf(owner.pid)
  if (started !== null || owner.started !== null) return started === owner.started
  try {
    kill(owner.pid, 0)
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
