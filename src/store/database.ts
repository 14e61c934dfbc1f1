import type { Socket } from 'node:net'
import postgres from 'postgres'
import { dialer } from './dial.ts'

export type Sql = postgres.Sql<{ bigint: number }>

/** How long one statement may take before its connection counts as lost, in milliseconds. */
const STATEMENT_TIMEOUT_MS = 30_000
/** The same for what the runtime reads: small, indexed, and waited for. */
const RUNTIME_TIMEOUT_MS = 5_000
/** Silence on a socket that lasts longer than any statement may: nobody is there. */
const SILENCE_MS = 2_000
/** How long queries under way may take when the pools close, in seconds. */
const CLOSE_S = 0.3

export interface Database {
  /** Reads of callers, and everything that may wait its turn. */
  reads: Sql
  /** Connections of the snapshot: whoever looks at what is stuck is not behind a list, and not on a connection that is cold. */
  snapshots: Sql
  /** Ends the reads under way: the database does not answer, and whoever waits for it is to be told so. */
  hangUp(): void
  /** Reads of the runtime: a pool of its own, so that no list delays adoption, mail or streams. */
  runtime: Sql
  /** The committer's own connection: never behind a slow read. */
  commits: Line
  /** The lease's own connection: a busy pool must not cost a node its lease. */
  leases: Line
  /** False on the embedded database, whose LISTEN does not cross its socket and which has a single node. */
  notifies: boolean
  close(): Promise<void>
}

/** One connection that can be given up for a new one, when it has gone silent and nobody closes it. */
export interface Line {
  readonly sql: Sql
  replace(): void
  close(): Promise<void>
}

export interface DatabaseTarget {
  /** A postgres:// URL. */
  url: string
  /** Directory of a unix socket that is used in place of the URL's host. */
  socket?: string
  notifies: boolean
}

/** Opens the pools; connects lazily, so it never fails itself. */
export function openDatabase(target: DatabaseTarget): Database {
  const open = new Set<Socket>()
  const reads = connect(target, 8, STATEMENT_TIMEOUT_MS, open)
  const snapshots = connect(target, 2, STATEMENT_TIMEOUT_MS, open)
  const runtime = connect(target, 4, RUNTIME_TIMEOUT_MS)
  const commits = openLine(target)
  const leases = openLine(target)
  return {
    reads,
    snapshots,
    hangUp: () => {
      for (const socket of open)
        socket.destroy(Object.assign(new Error('the database is away'), { code: 'ETIMEDOUT' }))
    },
    runtime,
    commits,
    leases,
    notifies: target.notifies,
    close: async () => {
      await Promise.all([
        reads.end({ timeout: CLOSE_S }),
        snapshots.end({ timeout: CLOSE_S }),
        runtime.end({ timeout: CLOSE_S }),
        commits.close(),
        leases.close(),
      ])
    },
  }
}

function openLine(target: DatabaseTarget): Line {
  let sql = connect(target, 1)
  return {
    get sql() {
      return sql
    },
    replace: () => {
      const silent = sql
      sql = connect(target, 1)
      silent.end({ timeout: 0 }).catch(() => {})
    },
    close: () => sql.end({ timeout: CLOSE_S }),
  }
}

function connect(
  target: DatabaseTarget,
  max: number,
  timeoutMs = STATEMENT_TIMEOUT_MS,
  open?: Set<Socket>,
): Sql {
  return postgres(target.url, {
    ...(target.socket === undefined ? {} : { path: target.socket }),
    max,
    // Its types do not know this option.
    ...{ socket: dialer(timeoutMs + SILENCE_MS, open) },
    connect_timeout: 5,
    backoff: (attempt: number) => Math.min(0.05 * 2 ** attempt, 1),
    keep_alive: 10,
    // A connection is kept until it breaks: recycling by age would only add reconnects under load.
    max_lifetime: null,
    onnotice: () => {},
    // The driver's own query for array types has nobody to take its error: a connection that is given up meanwhile
    // would end the process by an unhandled rejection. We use one such type, and name it below.
    fetch_types: false,
    connection: { application_name: 'runlane', statement_timeout: timeoutMs, TimeZone: 'UTC' },
    types: {
      // Ids, epochs and versions stay far below 2^53; a string would only be parsed again everywhere.
      bigint: { to: 20, from: [20], parse: Number, serialize: String },
      date: {
        to: 1184,
        from: [1082, 1114, 1184],
        serialize: String,
        parse: (text: string) => rfc3339(text),
      },
      textArray: { to: 1009, from: [1009], serialize: arrayText, parse: arrayOfText },
    },
  })
}

/**
 * The rows of a query that may have many. V8 puts functions that are assigned to properties into its old generation at once, as the
 * driver does for each query; what they reach, a query and its result, then survives every collection but a full one. Rows that
 * are taken out do not: with 500 runs a pause of 20 ms becomes one of 2 ms.
 */
export const takeRows = async <Row>(query: PromiseLike<Row[]>): Promise<Row[]> =>
  (await query).splice(0)

/** How our sessions write times; others, as of a pooler that keeps a zone of its own, are parsed. */
const UTC_TEXT = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d+))?\+00(?::00)?$/

/**
 * Postgres text of a timestamptz (or its JSON form) → RFC 3339 UTC with milliseconds.
 * Parsing a date of that form takes four times as long as moving its parts, and a snapshot has thousands.
 */
export function rfc3339(text: string): string {
  const parts = UTC_TEXT.exec(text)
  if (!parts) return new Date(text).toISOString()
  return `${parts[1]}T${parts[2]}.${(parts[3] ?? '').slice(0, 3).padEnd(3, '0')}Z`
}

/** A one-dimensional text[] as Postgres writes and reads it; ours have no nulls. */
const arrayText = (items: string[]): string =>
  `{${items.map((item) => `"${item.replaceAll(/["\\]/g, String.raw`\$&`)}"`).join(',')}}`
const arrayOfText = (text: string): string[] =>
  [...text.matchAll(/"((?:[^"\\]|\\.)*)"|[^,{}]+/gs)].map(([bare, quoted]) =>
    quoted === undefined ? bare : quoted.replaceAll(/\\(.)/gs, '$1'),
  )

const CONNECTION_ERRORS = new Set([
  'CONNECTION_CLOSED',
  'CONNECTION_ENDED',
  'CONNECTION_DESTROYED',
  'CONNECT_TIMEOUT',
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ENOENT',
])

/** The database is away or dropped us; whether the statement was carried out is unknown. */
export function isConnectionError(error: unknown): boolean {
  const code = codeOf(error)
  return (
    CONNECTION_ERRORS.has(code) ||
    code.startsWith('08') ||
    // 57P01..57P05: shut down, crashed, starting up, dropped, idle timeout. 53300: too many connections.
    code.startsWith('57P') ||
    code === '53300' ||
    code === '25006' ||
    (error instanceof AggregateError && error.errors.every((inner) => isConnectionError(inner)))
  )
}

/** Serialization failure, deadlock, cancelled statement: nothing was written, trying again is right. */
export function isTransientError(error: unknown): boolean {
  return ['40001', '40P01', '55P03', '57014'].includes(codeOf(error))
}

/**
 * One record of the flush is to blame: a value that Postgres refuses (SQLSTATE classes 21, 22, 23, 54) or that does not
 * fit into a message. Anything else, a full disk or a missing grant, is nobody's fault here and passes or does not.
 */
export function isDataError(error: unknown): boolean {
  return error instanceof RangeError || ['21', '22', '23', '54'].includes(codeOf(error).slice(0, 2))
}

function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return ''
  return String(error.code)
}
