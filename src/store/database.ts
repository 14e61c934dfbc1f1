import postgres from 'postgres'
import { dialer } from './dial.ts'

export type Sql = postgres.Sql<{ bigint: number }>

/** How long one statement may take before its connection counts as lost, in milliseconds. */
const STATEMENT_TIMEOUT_MS = 30_000
/** How long queries under way may take when the pools close, in seconds. */
const CLOSE_S = 0.3

export interface Database {
  /** Reads, and everything that may wait its turn. */
  reads: Sql
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
  const reads = connect(target, 8)
  const commits = openLine(target)
  const leases = openLine(target)
  return {
    reads,
    commits,
    leases,
    notifies: target.notifies,
    close: async () => {
      await Promise.all([reads.end({ timeout: CLOSE_S }), commits.close(), leases.close()])
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

function connect(target: DatabaseTarget, max: number): Sql {
  return postgres(target.url, {
    ...(target.socket === undefined ? {} : { path: target.socket }),
    max,
    // Its types do not know this option.
    ...{ socket: dialer() },
    connect_timeout: 5,
    backoff: (attempt: number) => Math.min(0.05 * 2 ** attempt, 1),
    keep_alive: 10,
    // A connection is kept until it breaks: recycling by age would only add reconnects under load.
    max_lifetime: null,
    onnotice: () => {},
    // The driver's own query for array types has nobody to take its error: a connection that is given up meanwhile
    // would end the process by an unhandled rejection. We use one such type, and name it below.
    fetch_types: false,
    connection: { application_name: 'runlane', statement_timeout: STATEMENT_TIMEOUT_MS },
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

/** Postgres text of a timestamptz (or its JSON form) → RFC 3339 UTC with milliseconds. */
const rfc3339 = (text: string): string => new Date(text).toISOString()

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

/** A value that Postgres refuses (SQLSTATE class 22 or 23): one record of the flush is to blame. */
export function isDataError(error: unknown): boolean {
  const code = codeOf(error)
  return code.startsWith('22') || code.startsWith('23')
}

function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return ''
  return String(error.code)
}
