import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { DatabaseTarget } from './database.ts'
import { lockDirectory } from './directory-lock.ts'

export interface EmbeddedDatabase {
  target: DatabaseTarget
  close(): Promise<void>
}

/** Paths of unix sockets end at 107 bytes. */
const SOCKET_PATH_MAX = 100

/**
 * Starts PGlite (Postgres in WebAssembly, in this process, on disk) in its own thread, behind a unix socket, so that
 * the same SQL through the same client serves both databases. One process per directory.
 *
 * Failure semantics: a commit survives `kill -9` of the process (the file system has it), but not a loss of power
 * (PGlite does not fsync). @throws when another process has the directory.
 */
export async function startEmbedded(dataDir: string): Promise<EmbeddedDatabase> {
  const directory = resolve(dataDir)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const unlock = await lockDirectory(directory)
  const socket = await socketPath(directory)
  const worker = new Worker(new URL('./embedded-worker.ts', import.meta.url), {
    workerData: { folder: join(directory, 'database'), socket },
    name: 'embedded-database',
  })
  try {
    await once(worker, 'message')
  } catch (cause) {
    await unlock()
    throw new Error(`the embedded database in ${directory} does not start`, { cause })
  }
  // A crash of the database is not ours to survive: without it nothing can be recorded.
  worker.on('error', (error) => {
    throw error
  })
  return {
    target: { url: 'postgres://postgres@localhost/postgres', socket, notifies: false },
    close: async () => {
      const closed = once(worker, 'message')
      worker.postMessage('close')
      await closed
      await worker.terminate()
      await rm(socket, { force: true })
      await unlock()
    },
  }
}

async function socketPath(directory: string): Promise<string> {
  let folder = join(directory, 'socket')
  if (join(folder, '.s.PGSQL.5432').length > SOCKET_PATH_MAX) {
    folder = join(
      tmpdir(),
      `runlane-${createHash('sha256').update(directory).digest('hex').slice(0, 16)}`,
    )
  }
  // The socket has no password: its folder is the protection.
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { mode: 0o700 })
  return join(folder, '.s.PGSQL.5432')
}
