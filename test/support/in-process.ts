import { randomUUID } from 'node:crypto'
import { serve, type ServerType } from '@hono/node-server'
import postgres from 'postgres'
import { runMachine, type RunMachine } from '../../machines/run.ts'
import type { Agent } from '../../src/agents/agent.ts'
import { AgentDirectory } from '../../src/agents/directory.ts'
import { Outbound } from '../../src/agents/outbound.ts'
import { SCRIPTED_CARD } from '../../src/agents/scripted.ts'
import type { AgentCard } from '../../src/agents/source.ts'
import { type Clock, systemClock } from '../../src/clock.ts'
import { LocalExecutors } from '../../src/executors/local/compose.ts'
import type { StartSession } from '../../src/executors/local/executor.ts'
import { startInline } from '../../src/executors/local/inline.ts'
import { createApp } from '../../src/http/app.ts'
import { Access } from '../../src/http/access/access.ts'
import { ConnectionLimit } from '../../src/http/access/limits.ts'
import { RunlaneNode } from '../../src/runtime/node.ts'
import type { AutoTerminate, WatchdogLimits } from '../../src/runtime/supervision/clocks.ts'
import { type Database, openDatabase } from '../../src/store/database.ts'
import { migrate } from '../../src/store/migrate.ts'
import { toolsOf } from './attempt.ts'
import { createDatabase } from './postgres.ts'
import { ADMIN_TOKEN } from './service.ts'

export interface WorldOptions {
  machine?: RunMachine
  recovery?: 'auto' | 'manual'
  maxCrashes?: number
  cancelTimeoutMs?: number
  leaseMs?: number
  watchdogExecutorMs?: number
  /** Other clocks of it. */
  watchdog?: Partial<WatchdogLimits>
  autoTerminate?: AutoTerminate
  queueTimeoutMs?: number
  heartbeatTimeoutMs?: number
  reconcileIntervalMs?: number
  orphanGraceMs?: number
  concurrency?: number
  /** Agents beside the scripted one. */
  agents?: readonly Agent[]
  /** In place of those: a folder of agent modules, which run in threads. */
  folder?: string
  clock?: Clock
  /** Another executor, made of the local one: one that loses what it is told. */
  executor?: (local: StartSession) => StartSession
  /** Another way to the same database, for the lease alone. */
  leaseUrl?: string
}

/** A node of the service as `src/main.ts` composes it, but inside the process of the test. */
export interface Replica {
  readonly url: string
  readonly token: string
  /** Stops serving and drains, as on SIGTERM. The address answers until the drain is over. */
  drain(): Promise<void>
  /** Dies as by `kill -9`: its connections are gone, and nothing that it still does counts. */
  die(): void
}

/** A database of its own, and nodes on it. */
export interface World {
  /** `alone`: proves every earlier node dead, as the lock of an embedded database does. */
  start(options?: { alone?: boolean }): Promise<Replica>
  close(): Promise<void>
}

/** Databases with the schema in them, made in a few milliseconds each: `template` first, then `worldOf`. */
export async function templateDatabase(
  adminUrl: string,
): Promise<{ name: string; drop(): Promise<void> }> {
  const name = `template_${randomUUID().replaceAll('-', '')}`
  const { url, drop } = await createDatabase(adminUrl, name)
  const database = openDatabase({ url, notifies: false })
  await migrate(database.reads)
  await database.close()
  return { name, drop }
}

export async function worldOf(
  adminUrl: string,
  template: string,
  options: WorldOptions = {},
): Promise<World> {
  const name = `world_${randomUUID().replaceAll('-', '')}`
  await administer(adminUrl, (sql) => sql`create database ${sql(name)} template ${sql(template)}`)
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  const replicas: LocalReplica[] = []
  return {
    start: async ({ alone = false } = {}) => {
      const replica = await LocalReplica.start(url.href, alone, options)
      replicas.push(replica)
      return replica
    },
    close: async () => {
      for (const replica of replicas) replica.die()
      await administer(adminUrl, (sql) => sql`drop database if exists ${sql(name)} with (force)`)
    },
  }
}

/** A node on a database that is there already. */
export const startReplica = (url: string, options: WorldOptions = {}): Promise<Replica> =>
  LocalReplica.start(url, false, options)

/** Agents of a test are objects of its own process: they run inline. */
const withExtra =
  (extra: readonly Agent[], others: StartSession): StartSession =>
  (job, port, onLost) => {
    const agent = extra.find((one) => one.name === job.agent)
    return agent
      ? startInline({ agent, tools: toolsOf(agent) }, job, port)
      : others(job, port, onLost)
  }

const cardOfExtra = ({ name }: Agent): AgentCard => ({
  ...SCRIPTED_CARD,
  name,
  kind: 'code',
  takes: 'anything',
})

class LocalReplica implements Replica {
  readonly url: string
  readonly token = ADMIN_TOKEN
  readonly #node: RunlaneNode
  readonly #server: ServerType
  readonly #database: Database
  readonly #outbound: Outbound
  #drain: Promise<void> | null = null

  readonly #executors: LocalExecutors

  constructor(
    node: RunlaneNode,
    server: ServerType,
    database: Database,
    outbound: Outbound,
    executors: LocalExecutors,
  ) {
    this.#executors = executors
    const address = server.address()
    if (typeof address !== 'object' || address === null) throw new Error('the server has no port')
    this.url = `http://127.0.0.1:${address.port}`
    this.#node = node
    this.#server = server
    this.#database = database
    this.#outbound = outbound
  }

  static async start(url: string, alone: boolean, options: WorldOptions): Promise<LocalReplica> {
    const { machine = runMachine, recovery = 'auto', maxCrashes = 3 } = options
    const { cancelTimeoutMs = 180_000, leaseMs = 5_000, agents: extra = [] } = options
    const {
      autoTerminate = { mode: 'off' },
      queueTimeoutMs = 3_600_000,
      heartbeatTimeoutMs = 300_000,
      reconcileIntervalMs = 100,
      orphanGraceMs = 30_000,
      concurrency = 100,
    } = options
    const { executor = (local: StartSession) => local } = options
    const { clock = systemClock, leaseUrl, watchdogExecutorMs = 15_000, watchdog = {} } = options
    const database = databaseOf(url, leaseUrl)
    const allow = ['127.0.0.0/8']
    const outbound = new Outbound(allow)
    const agents = new AgentDirectory({
      scripted: SCRIPTED_CARD,
      environment: {},
      findDeclared: async () => undefined,
      listDeclared: async () => [],
    })
    agents.setCode(extra.map(cardOfExtra), [])
    const executors = new LocalExecutors({
      agents,
      outbound,
      allow,
      version: '0.0.0-test',
      environment: {},
      silenceMs: watchdogExecutorMs,
      onUncaught: () => {},
    })
    if (options.folder !== undefined) await executors.load(options.folder)
    const log = { info: () => {}, warn: () => {}, error: () => {} }
    const node = new RunlaneNode({
      database,
      alone,
      executor: (facts) => executor(withExtra(extra, executors.forNode(facts))),
      nodeId: `node-${randomUUID().slice(0, 8)}`,
      version: '0.0.0-test',
      leaseMs,
      concurrency,
      recovery,
      maxCrashes,
      cancelTimeoutMs,
      reconcileIntervalMs,
      orphanGraceMs,
      heartbeatTimeoutMs,
      queueTimeoutMs,
      retentionMs: null,
      watchdog: {
        intervalMs: 50,
        autoTerminate,
        limits: {
          reasoning: 30_000,
          tool: 150_000,
          turn: 600_000,
          ...watchdog,
          executor: watchdogExecutorMs,
        },
      },
      clock,
      log,
      machine,
    })
    await node.start()
    const app = createApp({
      node,
      reads: database.reads,
      snapshots: database.snapshots,
      agents,
      outbound,
      signsWebhooks: false,
      metrics: { scrape: async () => '' },
      access: new Access({
        sql: database.reads,
        adminToken: ADMIN_TOKEN,
        jwt: { secret: null, jwksUrl: null, issuer: null, audience: null },
        rateLimit: 10_000,
        log,
      }),
      connections: new ConnectionLimit(1_000),
      bodyLimitBytes: 1_000_000,
      sseHeartbeatMs: 15_000,
      version: '0.0.0-test',
      log,
    })
    const server = await new Promise<ServerType>((resolve) => {
      const listening = serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 }, () =>
        resolve(listening),
      )
    })
    return new LocalReplica(node, server, database, outbound, executors)
  }

  drain(): Promise<void> {
    this.#drain ??= this.#node.stop().then(() => this.die())
    return this.#drain
  }

  die(): void {
    this.#server.close()
    if ('closeAllConnections' in this.#server) this.#server.closeAllConnections()
    const { commits, leases, reads, snapshots } = this.#database
    for (const sql of [commits.sql, leases.sql, reads, snapshots]) void sql.end({ timeout: 0 })
    void this.#outbound.close()
    void this.#executors.close()
    // What is left of the node in this process comes to its end without being able to do anything.
    this.#drain ??= this.#node.stop()
    this.#drain.catch(() => {})
  }
}

function databaseOf(url: string, leaseUrl: string | undefined): Database {
  const database = openDatabase({ url, notifies: true })
  if (leaseUrl === undefined) return database
  void database.leases.close()
  const { leases, ...unused } = openDatabase({ url: leaseUrl, notifies: false })
  void unused.commits.close()
  void unused.reads.end()
  void unused.snapshots.end()
  return { ...database, leases }
}

async function administer(url: string, run: (sql: postgres.Sql) => Promise<unknown>) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  try {
    await run(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}
