/** The composition root: the only place that reads the environment, and the only one that ends the process. */
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import process from 'node:process'
import { type ServerType, serve } from '@hono/node-server'
import { createRegistry } from './agents/registry.ts'
import { Outbound } from './agents/outbound.ts'
import { systemClock } from './clock.ts'
import { type Config, ConfigError, parseConfig } from './config.ts'
import { messageOf, StartError } from './errors.ts'
import { createApp } from './http/app.ts'
import { authenticator, ownAdminToken } from './http/tokens.ts'
import { jsonLogger } from './runtime/log.ts'
import { RunlaneNode } from './runtime/node.ts'
import { type DatabaseTarget, isConnectionError, openDatabase } from './store/database.ts'
import { startEmbedded } from './store/embedded.ts'
import { migrate } from './store/migrate.ts'
import { welcome } from './welcome.ts'

const { version } = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as { version: string }

/** Streams are told to come back and get this long to end by themselves, in milliseconds. */
const CLOSE_MS = 300
/** After a SIGTERM the process ends within ten seconds, whatever does not answer: other nodes adopt what it left. */
const STOP_MS = 9_600

async function start(config: Config): Promise<void> {
  const log = jsonLogger((line) => process.stderr.write(`${line}\n`))
  const embedded = config.databaseUrl === null ? await startEmbedded(config.dataDir) : null
  const target: DatabaseTarget = embedded?.target ?? {
    url: config.databaseUrl ?? '',
    notifies: true,
  }
  const database = openDatabase(target)
  await migrate(database.reads).catch((error: unknown) => {
    if (!isConnectionError(error) || embedded) throw error
    throw new StartError(`DATABASE_URL: the database does not answer: ${messageOf(error)}`)
  })
  const token = config.adminToken ?? (await ownAdminToken(database.reads, config.dataDir))
  const outbound = new Outbound(config.webhookAllow)
  const agents = createRegistry(outbound)
  const node = new RunlaneNode({
    database,
    alone: embedded !== null,
    agents,
    allow: config.webhookAllow,
    nodeId: config.nodeId,
    version,
    leaseMs: config.leaseMs,
    concurrency: config.concurrency,
    recovery: config.recovery,
    maxCrashes: config.maxCrashes,
    cancelTimeoutMs: config.cancelTimeoutMs,
    clock: systemClock,
    log,
  })
  await node.start()
  const app = createApp({
    node,
    reads: database.reads,
    agents,
    outbound,
    authenticate: authenticator(database.reads, config.adminToken),
    bodyLimitBytes: config.bodyLimitBytes,
    sseHeartbeatMs: config.sseHeartbeatMs,
    version,
    log,
  })
  const server = await listen(app.fetch, config).catch(async (error: unknown) => {
    // It has claimed runs already: they go back now instead of waiting for its lease to end.
    await node.stop()
    throw error
  })
  let stopping = false
  const stop = async (): Promise<void> => {
    if (stopping) return
    stopping = true
    setTimeout(() => process.exit(0), STOP_MS)
    server.close()
    await node.stop()
    await new Promise((resolve) => setTimeout(resolve, node.feed.readers > 0 ? CLOSE_MS : 0))
    if ('closeAllConnections' in server) server.closeAllConnections()
    await outbound.close()
    await database.close()
    await embedded?.close()
    process.exit(0)
  }
  process.on('SIGTERM', () => void stop())
  process.on('SIGINT', () => void stop())
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : config.port
  process.stdout.write(
    welcome({ host: config.host, port, token, configured: config.adminToken !== null }),
  )
}

function listen(fetch: Parameters<typeof serve>[0]['fetch'], config: Config): Promise<ServerType> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch, hostname: config.host, port: config.port }, () => resolve(server))
    server.once('error', (error: Error) => reject(inUse(error, config) ?? error))
  })
}

function inUse(error: Error, { host, port }: Config): StartError | undefined {
  if (!('code' in error)) return undefined
  if (error.code !== 'EADDRINUSE')
    return new StartError(`HOST ${host}, PORT ${port}: ${error.message}`)
  return new StartError(`port ${port} of ${host} is in use: another PORT, or PORT=0 for a free one`)
}

try {
  const host = hostname()
  await start(parseConfig(process.env, { host, pid: process.pid }))
} catch (error) {
  const text =
    error instanceof ConfigError || error instanceof StartError
      ? error.message
      : error instanceof Error
        ? (error.stack ?? error.message)
        : String(error)
  process.stderr.write(`runlane cannot start:\n${text}\n`)
  process.exit(1)
}
