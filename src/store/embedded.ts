import { createHash } from 'node:crypto'
import { on } from 'node:events'
import { mkdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { connect } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import { messageOf, StartError } from '../errors.ts'
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
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw new StartError(`RUNLANE_DATA_DIR ${directory} cannot be made: ${messageOf(cause)}`)
  }
  const unlock = await lockDirectory(directory)
  const socket = socketPath(directory)
  // A process in another container has a pid that means nothing here, but its database answers.
  if (await answers(socket)) {
    await unlock()
    throw new StartError(
      `${directory} is in use: its database answers another process (in another container?)`,
    )
  }
  await freshFolder(dirname(socket))
  const worker = new Worker(new URL('./embedded-worker.ts', import.meta.url), {
    workerData: { folder: join(directory, 'database'), socket },
    name: 'embedded-database',
  })
  try {
    await told(worker, 'ready')
  } catch (cause) {
    await unlock()
    throw new StartError(
      `the embedded database in RUNLANE_DATA_DIR ${directory} does not start: ${messageOf(cause)}`,
    )
  }
  // A crash of the database is not ours to survive: without it nothing can be recorded.
  worker.on('error', (error) => {
    throw error
  })
  return {
    target: { url: 'postgres://postgres@localhost/postgres', socket, notifies: false },
    close: async () => {
      const closed = told(worker, 'closed')
      worker.postMessage('close')
      await closed
      await worker.terminate()
      await rm(socket, { force: true })
      await unlock()
    },
  }
}

/** Resolves at this word of the worker; others, such as those of `node --watch`, are not for us. */
async function told(worker: Worker, word: string): Promise<void> {
  for await (const [message] of on(worker, 'message', { close: ['exit'] }) as AsyncIterable<
    [unknown]
  >)
    if (message === word) return
  throw new Error('its thread has ended')
}

function socketPath(directory: string): string {
  const inside = join(directory, 'socket', '.s.PGSQL.5432')
  if (inside.length <= SOCKET_PATH_MAX) return inside
  const name = createHash('sha256').update(directory).digest('hex').slice(0, 16)
  return join(tmpdir(), `runlane-${name}`, '.s.PGSQL.5432')
}

/** The socket has no password: its folder is the protection. */
async function freshFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { mode: 0o700 })
}

function answers(socket: string): Promise<boolean> {
  return new Promise((tell) => {
    const probe = connect({ path: socket })
    const settle = (answered: boolean) => (): void => {
      probe.destroy()
      tell(answered)
    }
    probe.once('connect', settle(true)).once('error', settle(false))
  })
}
