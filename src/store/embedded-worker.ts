/** The thread of the embedded database: a flush that takes 8 ms here blocks nobody's event loop. */
import { PGlite } from '@electric-sql/pglite'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import { parentPort, workerData } from 'node:worker_threads'

const { folder, socket } = workerData as { folder: string; socket: string }
const database = await PGlite.create(folder)
// More connections than our pools open; a further one would be dropped, not queued.
const server = new PGLiteSocketServer({ db: database, path: socket, maxConnections: 32 })
await server.start()

parentPort?.once('message', () => void close())
parentPort?.postMessage('ready')

async function close(): Promise<void> {
  await server.stop()
  await database.close()
  parentPort?.postMessage('closed')
}
