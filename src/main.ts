/** The composition root: the only place that reads the environment, and the only one that ends the process. */
import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { resolve as absolute } from 'node:path'
import process from 'node:process'
import { declaredOf } from './agents/declared.ts'
import { AgentDirectory } from './agents/directory.ts'
import { Outbound } from './agents/outbound.ts'
import { SCRIPTED_CARD } from './agents/scripted.ts'
import { systemClock } from './clock.ts'
import { type Config, ConfigError, parseConfig, shownSettings } from './config.ts'
import { messageOf, StartError } from './errors.ts'
import { LocalExecutors } from './executors/local/compose.ts'
import { watchFolder } from './executors/local/watch.ts'
import { createApp } from './http/app.ts'
import { Access } from './http/access/access.ts'
import { ConnectionLimit } from './http/access/limits.ts'
import { ownAdminToken } from './http/access/tokens.ts'
import { listen } from './http/server.ts'
import { createLogger } from './log.ts'
import { Metrics } from './metrics/metrics.ts'
import type { Logger } from './runtime/log.ts'
import { RunlaneNode } from './runtime/node.ts'
import { startSentinel } from './runtime/supervision/sentinel.ts'
import { settings } from './settings.ts'
import { findDeclared, listDeclared } from './store/agents.ts'
import {
  type Database,
  type DatabaseTarget,
  isConnectionError,
  openDatabase,
} from './store/database.ts'
import { startEmbedded } from './store/embedded.ts'
import { migrate } from './store/migrate.ts'
import { WebhookDispatcher } from './webhooks/dispatcher.ts'
import { urlOf, welcome } from './welcome.ts'

const { version } = JSON.parse(
  readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
) as { version: string }

/** Streams are told to come back and get this long to end by themselves, in milliseconds. */
const CLOSE_MS = 300
/** Streams and waits that one caller may hold open on this node. */
const CONNECTIONS_MAX = 2_000
/** An event loop that is blocked for so long is told of, in milliseconds. */
const BLOCKED_MS = 3_000
/** After a SIGTERM the process ends within ten seconds, whatever does not answer: other nodes adopt what it left. */
const STOP_MS = 9_600

async function start(config: Config): Promise<void> {
  const log = createLogger(config.nodeId)
  const outbound = new Outbound(config.webhookAllow)
  checkWebhookUrls(config, outbound)
  checkAgentsFolder(config)
  const store = openStore(config)
  const { agents, executors, load } = composeAgents(config, store, outbound, log)
  // Beside each other: importing agent modules and starting the embedded database take a second each.
  const [{ database, embedded, token }] = await Promise.all([store, load()])
  const webhooks = new WebhookDispatcher({
    sql: database.reads,
    send: (...request) => outbound.send(...request),
    secret: config.webhookSecret,
    retentionMs: config.retentionMs,
    clock: systemClock,
    log,
  })
  const node = new RunlaneNode({
    database,
    alone: embedded !== null,
    executor: (facts) => executors.forNode(facts),
    nodeId: config.nodeId,
    version,
    leaseMs: config.leaseMs,
    concurrency: config.concurrency,
    recovery: config.recovery,
    maxCrashes: config.maxCrashes,
    cancelTimeoutMs: config.cancelTimeoutMs,
    reconcileIntervalMs: config.reconcileIntervalMs,
    heartbeatTimeoutMs: config.heartbeatTimeoutMs,
    orphanGraceMs: config.orphanGraceMs,
    queueTimeoutMs: config.queueTimeoutMs,
    retentionMs: config.retentionMs,
    webhooks: { endpoints: config.webhookUrls, look: () => webhooks.look() },
    watchdog: {
      intervalMs: config.watchdogIntervalMs,
      autoTerminate: config.autoTerminate,
      limits: {
        reasoning: config.watchdogReasoningMs,
        tool: config.watchdogToolMs,
        turn: config.watchdogTurnMs,
        executor: config.watchdogExecutorMs,
      },
    },
    clock: systemClock,
    log,
  })
  const { monotonicMs } = systemClock
  const metrics = new Metrics({ node, webhooks, database, monotonicMs })
  await node.start()
  webhooks.start()
  const stopSentinel = startSentinel({
    nodeId: config.nodeId,
    silenceMs: BLOCKED_MS,
    hosted: () => node.hosted,
    monotonicMs: systemClock.monotonicMs,
  })
  const app = createApp({
    node,
    reads: database.reads,
    snapshots: database.snapshots,
    agents,
    outbound,
    metrics,
    signsWebhooks: config.webhookSecret !== null,
    access: new Access({
      sql: database.reads,
      adminToken: config.adminToken,
      jwt: {
        secret: config.jwtSecret,
        jwksUrl: config.jwksUrl,
        issuer: config.jwtIssuer,
        audience: config.jwtAudience,
      },
      rateLimit: config.rateLimit,
      log,
    }),
    connections: new ConnectionLimit(CONNECTIONS_MAX),
    bodyLimitBytes: config.bodyLimitBytes,
    sseHeartbeatMs: config.sseHeartbeatMs,
    version,
    log,
  })
  const server = await listen(app.fetch, config).catch(async (error: unknown) => {
    // It has claimed runs already: they go back now instead of waiting for its lease to end.
    await Promise.all([node.stop(), webhooks.stop()])
    throw inUse(error, config) ?? error
  })
  const unwatch = process.argv.includes('--watch-agents')
    ? watchFolder(absolute(config.agents), () => {
        load().catch((error: unknown) => log.error({ problem: String(error) }, 'agents not loaded'))
      })
    : () => {}
  let stopping = false
  const stop = async (): Promise<void> => {
    if (stopping) return
    stopping = true
    setTimeout(() => process.exit(0), STOP_MS)
    server.close()
    unwatch()
    await stopSentinel()
    await Promise.all([node.stop(), webhooks.stop()])
    await new Promise((resolve) => setTimeout(resolve, node.feed.readers > 0 ? CLOSE_MS : 0))
    if ('closeAllConnections' in server) server.closeAllConnections()
    await executors.close()
    await outbound.close()
    await metrics.close()
    await database.close()
    await embedded?.close()
    process.exit(0)
  }
  process.on('SIGTERM', () => void stop())
  process.on('SIGINT', () => void stop())
  const address = server.address()
  const port = typeof address === 'object' && address ? address.port : config.port
  log.info(
    {
      version,
      database: embedded ? 'embedded' : 'postgres',
      address: urlOf(config.host, port),
      settings: shownSettings(process.env),
    },
    'the service listens',
  )
  process.stdout.write(
    welcome({
      host: config.host,
      port,
      token,
      configured: config.adminToken !== null,
      assistant: agents.findLocal('assistant') !== undefined,
    }),
  )
}

/** @throws StartError for a receiver that could never be reached. */
function checkWebhookUrls({ webhookUrls }: Config, outbound: Outbound): void {
  for (const url of webhookUrls) {
    const refusal = outbound.refusal(url)
    // Its path or query may hold a key.
    if (refusal) throw new StartError(`RUNLANE_WEBHOOK_URLS: ${new URL(url).host} ${refusal}`)
  }
}

/** @throws StartError for a folder that somebody has named and that is not there; the default one may be missing. */
function checkAgentsFolder({ agents }: Config): void {
  const folder = absolute(agents)
  if (process.env[settings.agents.name] && !existsSync(folder))
    throw new StartError(`${settings.agents.name}: there is no folder ${folder}`)
}

interface Store {
  database: Database
  embedded: Awaited<ReturnType<typeof startEmbedded>> | null
  token: string
}

/** The database with the schema of this version in it. */
async function openStore(config: Config): Promise<Store> {
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
  return { database, embedded, token }
}

/** Which agents there are and what runs them; `load` reads the agent modules, again and again if need be. */
function composeAgents(config: Config, store: Promise<Store>, outbound: Outbound, log: Logger) {
  const environment = agentEnvironment(process.env)
  const agents = new AgentDirectory({
    scripted: SCRIPTED_CARD,
    environment,
    findDeclared: async (name) => {
      const row = await findDeclared((await store).database.runtime, name)
      return row && declaredOf(row, outbound)
    },
    listDeclared: async () => {
      const rows = await listDeclared((await store).database.reads)
      return rows.map((row) => declaredOf(row, outbound))
    },
  })
  const executors = new LocalExecutors({
    agents,
    outbound,
    allow: config.webhookAllow,
    version,
    environment,
    silenceMs: config.watchdogExecutorMs,
    onUncaught: (run_id, problem) =>
      log.error({ run_id, problem }, 'agent code threw an error that nobody caught'),
  })
  const load = async (): Promise<void> => {
    try {
      await executors.load(absolute(config.agents))
    } catch (error) {
      throw new StartError(`RUNLANE_AGENTS ${config.agents}: ${messageOf(error)}`)
    }
    for (const { file, message } of agents.problems)
      log.error({ file, problem: message }, 'an agent module cannot be used')
  }
  return { agents, executors, load }
}

/**
 * Agent code gets the environment, for keys of its own and of providers, but nothing that opens the service itself. Empty
 * settings of providers count as unset here too: their SDKs cannot even be imported with an empty base URL.
 */
function agentEnvironment(env: NodeJS.ProcessEnv): Record<string, string> {
  const isOurs = (name: string): boolean => /^(RUNLANE_|DATABASE_URL$|PG[A-Z]+$)/i.test(name)
  const isUnset = (name: string, value: string): boolean =>
    value === '' && /_(API_KEY|BASE_URL)$/.test(name)
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) =>
      value === undefined || isUnset(name, value) || isOurs(name) ? [] : [[name, value]],
    ),
  )
}

function inUse(error: unknown, { host, port }: Config): StartError | undefined {
  if (!(error instanceof Error && 'code' in error)) return undefined
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
