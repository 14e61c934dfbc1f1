/** The thread of the embedded database: a flush that takes 8 ms here blocks nobody's event loop. */
import { PGlite } from '@electric-sql/pglite'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import { parentPort, workerData } from 'node:worker_threads'

const { folder, socket } = workerData as { folder: string; socket: string }
const database = await PGlite.create(folder)
// More connections than our pools open; a further one would be dropped, not queued.
const server = new PGLiteSocketServer({
  db: inWholeBatches(database),
  path: socket,
  maxConnections: 32,
})
await server.start()

parentPort?.once('message', () => void close())
parentPort?.postMessage('ready')

async function close(): Promise<void> {
  await server.stop()
  await database.close()
  parentPort?.postMessage('closed')
}

/**
 * All connections share one session of the database, and the server takes turns between their messages except inside a
 * transaction. But what one of them has bound is unnamed: another's message before its execution replaces it, or ends it
 * with its transaction, and then one connection gets the rows of another. So a batch counts as a transaction too, until
 * the message that ends it (https://github.com/electric-sql/pglite/issues/1046).
 */
function inWholeBatches(db: PGlite): PGlite {
  let isOpen = false
  const isInTransaction = (): boolean => isOpen || db.isInTransaction()
  const execProtocolRawStream: PGlite['execProtocolRawStream'] = (message, options) => {
    isOpen = 'PBDECH'.includes(String.fromCharCode(message[0] ?? 0))
    return db.execProtocolRawStream(message, options)
  }
  /** How the server ends what a connection left behind. */
  const exec: PGlite['exec'] = (...query) => {
    isOpen = false
    return db.exec(...query)
  }
  const own = { isInTransaction, execProtocolRawStream, exec }
  return new Proxy(db, {
    get: (target, name) => {
      if (Object.hasOwn(own, name)) return own[name as keyof typeof own]
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}
