import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

/** What `RUNLANE_ADMIN_TOKEN` is in every service of a test. */
export const ADMIN_TOKEN = 'test-admin-token-0123456789'

/**
 * Starts the service as its users do, as a process of its own, and waits until it says that it listens.
 * It inherits nothing of the test's environment but paths and locale. What is left running when the
 * test's process ends is killed, and data directories made here are removed.
 *
 * @throws when it does not listen within 20 s or exits before; the message has its output.
 */
export const startService = async (options: ServiceOptions = {}): Promise<Service> => {
  const dataDir = options.dataDir ?? freshDataDir()
  const child = launch(options, dataDir)
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  const exited = exitOf(child)
  const url = await listening(child, exited, output)

  const running = (): boolean => child.exitCode === null && child.signalCode === null
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<ServiceExit> => {
    if (running()) child.kill(signal)
    return within(exited, `${signal} to end the service`, child, output)
  }
  const stop = async (): Promise<ServiceExit> => {
    const exit = kill('SIGTERM')
    // A frozen process would get the signal only once it is thawed.
    if (running()) child.kill('SIGCONT')
    return exit
  }

  return {
    url,
    token: ADMIN_TOKEN,
    pid: child.pid ?? 0,
    dataDir,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    kill,
    stop,
    freeze: () => void child.kill('SIGSTOP'),
    thaw: () => void child.kill('SIGCONT'),
    exited,
    restart: async (changes = {}) => {
      await stop()
      const env = { ...options.env, ...changes.env }
      const port = Number(new URL(url).port)
      return startService({ ...options, dataDir, port, ...changes, env })
    },
  }
}

export type ServiceOptions = {
  readonly env?: Readonly<Record<string, string>>
  /** Default: a fresh temporary folder, where the embedded database lives if there is no other. */
  readonly dataDir?: string | undefined
  /** Default: the embedded database. */
  readonly databaseUrl?: string | undefined
  /** Default: 0, a free one. */
  readonly port?: number | undefined
  /** Options of Node itself, before the script. */
  readonly nodeArgs?: readonly string[]
  /** Default: `src/main.ts`. */
  readonly entry?: string
}

export type ServiceExit = { readonly code: number | null; readonly signal: NodeJS.Signals | null }

export type Service = {
  /** Without a slash at the end. */
  readonly url: string
  readonly token: string
  readonly pid: number
  readonly dataDir: string
  /** All it has printed so far. */
  stdout(): string
  stderr(): string
  /** Default: SIGKILL. Resolves when the process is gone; so it does when it was gone before. */
  kill(signal?: NodeJS.Signals): Promise<ServiceExit>
  /** SIGTERM: the service drains. Thaws it first. @throws when it still runs after 20 s. */
  stop(): Promise<ServiceExit>
  /** SIGSTOP: alive, but it does nothing until `thaw`. */
  freeze(): void
  thaw(): void
  /** Resolves with the process's end, and never rejects. */
  readonly exited: Promise<ServiceExit>
  /**
   * Another process with the same settings, data directory and port, so that `url` stays true. Stops
   * this one first, if it still runs. This object stays that of the old process.
   */
  restart(changes?: ServiceOptions): Promise<Service>
}

type Output = { readonly stdout: string; readonly stderr: string }

const ROOT = resolve(import.meta.dirname, '../..')
const BIN = join(ROOT, 'node_modules/.bin')
const DEADLINE_MS = 20_000

const freshDataDir = (): string => {
  const dataDir = mkdtempSync(join(tmpdir(), 'runlane-test-'))
  // The wait is for the services that live in it, which are killed at the same time.
  afterUs('sleep 1; rm -rf "$0"', dataDir)
  // Making a database takes seconds, a copy of one does not.
  const migrated = process.env['MIGRATED_DATABASE']
  if (migrated !== undefined) cpSync(migrated, join(dataDir, 'database'), { recursive: true })
  return dataDir
}

/**
 * Runs a shell command, `argument` being its `$0`, when this process is gone: the end of its pipe tells
 * the watcher. An `exit` listener would not do, vitest ends its workers by SIGTERM.
 */
const afterUs = (command: string, argument: string): ChildProcess => {
  const watcher = spawn('sh', ['-c', `read -r _; ${command}`, argument], {
    stdio: ['pipe', 'ignore', 'ignore'],
    // A Ctrl-C meant for the tests must not end the watcher before them.
    detached: true,
  })
  watcher.unref()
  return watcher
}

const launch = (options: ServiceOptions, dataDir: string): ChildProcess => {
  const { env = {}, databaseUrl, port = 0, nodeArgs = [], entry = 'src/main.ts' } = options
  const child = spawn(join(BIN, 'node'), [...nodeArgs, entry], {
    cwd: ROOT,
    env: {
      ...inherited(),
      PORT: String(port),
      RUNLANE_ADMIN_TOKEN: ADMIN_TOKEN,
      RUNLANE_DATA_DIR: dataDir,
      ...(databaseUrl === undefined ? {} : { DATABASE_URL: databaseUrl }),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (child.pid !== undefined) {
    const watcher = afterUs('kill -KILL "$0"', String(child.pid))
    child.once('exit', () => watcher.kill())
  }
  return child
}

/** Settings of whoever runs the tests, their API keys above all, must not change what is tested. */
const inherited = (): Record<string, string> => {
  const env: Record<string, string> = { PATH: `${BIN}:${process.env.PATH ?? ''}` }
  for (const name of ['HOME', 'LANG', 'LC_ALL', 'TMPDIR', 'TZ', 'NODE_V8_COVERAGE']) {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  const compiled = process.env['COMPILE_CACHE']
  if (compiled !== undefined) env['NODE_COMPILE_CACHE'] = compiled
  return env
}

/** Resolves when the output is complete too, unless a grandchild keeps the pipes open. */
const exitOf = (child: ChildProcess): Promise<ServiceExit> =>
  new Promise((settle) => {
    child.once('error', () => settle({ code: null, signal: null }))
    child.once('close', (code, signal) => settle({ code, signal }))
    child.once('exit', (code, signal) => void setTimeout(settle, 500, { code, signal }).unref())
  })

const listening = async (
  child: ChildProcess,
  exited: Promise<ServiceExit>,
  output: Output,
): Promise<string> => {
  const spoken = new Promise<string>((found) => {
    child.stdout?.on('data', () => {
      const [, url] = /^runlane listening on (http:\/\/\S+).*\n/m.exec(output.stdout) ?? []
      if (url !== undefined) found(url.replace(/\/$/, ''))
    })
  })
  const ended = exited.then(({ code, signal }) => {
    throw new Error(`the service ended (${signal ?? code}) before it listened${shown(output)}`)
  })
  return within(Promise.race([spoken, ended]), 'the service to listen', child, output)
}

/** @throws when it takes longer than the deadline; the process is killed then. */
const within = async <T>(
  promise: Promise<T>,
  what: string,
  child: ChildProcess,
  output: Output,
): Promise<T> => {
  const limit = new AbortController()
  const late = pause(DEADLINE_MS, undefined, { signal: limit.signal }).then(() => {
    child.kill('SIGKILL')
    throw new Error(`waited ${DEADLINE_MS} ms for ${what}${shown(output)}`)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    limit.abort()
    late.catch(() => {})
  }
}

const shown = ({ stdout, stderr }: Output): string =>
  `\n--- stderr\n${stderr.slice(-8_000)}\n--- stdout\n${stdout.slice(-2_000)}`
