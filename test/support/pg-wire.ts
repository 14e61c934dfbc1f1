/** One protocol message as it came. `type` is its letter; `''` for those of the start, which have none. */
export type PgMessage = { readonly type: string; readonly bytes: Buffer }

/**
 * Cuts a byte stream into Postgres messages, however its chunks are cut. With `startup` it begins with
 * messages without a type byte (SSLRequest, GSSENCRequest, CancelRequest, StartupMessage), as a
 * client's stream does; a server's has type bytes from the first.
 *
 * @throws on a length that can't be, which is another protocol (TLS, say).
 */
export const pgFramer = ({ startup }: { startup: boolean }): ((chunk: Buffer) => PgMessage[]) => {
  let untyped = startup
  let chunks: Buffer[] = []
  let size = 0
  let needed = 1

  return (chunk) => {
    chunks.push(chunk)
    size += chunk.length
    // Waiting for the whole before joining keeps a message of many chunks from being copied for each.
    if (size < needed) return []
    let rest = Buffer.concat(chunks)
    const messages: PgMessage[] = []
    for (;;) {
      needed = messageLength(rest, untyped)
      if (rest.length < needed) break
      const bytes = rest.subarray(0, needed)
      messages.push({ type: untyped ? '' : String.fromCharCode(bytes[0] ?? 0), bytes })
      if (untyped && startCode(bytes) === 'startup') untyped = false
      rest = rest.subarray(needed)
    }
    chunks = [rest]
    size = rest.length
    return messages
  }
}

/** The whole message's length, or the bytes needed to know it. */
const messageLength = (bytes: Buffer, untyped: boolean): number => {
  const before = untyped ? 0 : 1
  if (bytes.length < before + 4) return before + 4
  const length = bytes.readInt32BE(before)
  const longest = untyped ? 10_000 : 2 ** 30
  if (length < 4 || length > longest || (untyped && length < 8)) {
    throw new Error(`not the Postgres protocol: a message of ${length} bytes`)
  }
  return before + length
}

/** What an untyped message asks for. */
export const startCode = (bytes: Buffer): 'encryption' | 'cancel' | 'startup' => {
  const code = bytes.readInt32BE(4)
  if (code === 80877103 || code === 80877104) return 'encryption'
  return code === 80877102 ? 'cancel' : 'startup'
}

/** How the server ended what one ReadyForQuery ends. */
export type PgReply = {
  readonly query: string
  /** Of the last CommandComplete, such as `SELECT 1`. */
  readonly tag: string | null
  /** The server answered with an ErrorResponse. */
  readonly failed: boolean
  /** The session is inside a transaction block: nothing is committed yet. */
  readonly inTransaction: boolean
}

/** Asked for one statement: whether its reply, once known, is withheld from the client. */
export type Withholding = { withhold(reply: PgReply): boolean }

/** What is sent on to the client; after `withheld` the connection is to be cut. */
export type PgVerdict = { readonly forward: readonly Buffer[]; readonly withheld: boolean }

/**
 * Follows one session's two streams and finds the reply that belongs to a statement: each Sync, simple
 * Query or function call of the client is answered by one ReadyForQuery, in order, so pipelined
 * statements are told apart. `watch` is called when a statement is about to be executed.
 *
 * Not for `copy … from stdin` in the extended protocol, where the server skips Syncs.
 */
export const pgSession = (watch: (query: string) => Withholding | undefined): PgSession => {
  const statements = new Map<string, string>()
  const portals = new Map<string, string>()
  // The start-up is the first unit; the last one is open until the client's Sync.
  const units: Unit[] = [newUnit(), newUnit()]

  const executes = (query: string): void => {
    const unit = units.at(-1)
    if (unit === undefined || unit.withholding !== undefined) return
    unit.withholding = watch(query)
    if (unit.withholding !== undefined) unit.query = query
  }

  const fromClient = ({ type, bytes }: PgMessage): void => {
    if (type === 'P') statements.set(text(bytes, 0), text(bytes, 1))
    if (type === 'B') portals.set(text(bytes, 0), statements.get(text(bytes, 1)) ?? '')
    if (type === 'E') executes(portals.get(text(bytes, 0)) ?? '')
    if (type === 'Q') executes(text(bytes, 0))
    if (type === 'S' || type === 'Q' || type === 'F') units.push(newUnit())
  }

  const fromServer = ({ type, bytes }: PgMessage): PgVerdict => {
    const [unit] = units
    if (unit === undefined) return { forward: [bytes], withheld: false }
    if (type === 'E') unit.failed = true
    if (type === 'C') unit.tag = text(bytes, 0)
    if (type === 'Z') units.shift()
    const { withholding, held } = unit
    if (withholding === undefined) return { forward: [bytes], withheld: false }
    held.push(bytes)
    if (type !== 'Z') return { forward: [], withheld: false }
    const { query, tag, failed } = unit
    const reply = { query, tag, failed, inTransaction: bytes.at(5) !== IDLE }
    return withholding.withhold(reply)
      ? { forward: [], withheld: true }
      : { forward: held, withheld: false }
  }

  return { fromClient, fromServer }
}

export type PgSession = {
  fromClient(message: PgMessage): void
  fromServer(message: PgMessage): PgVerdict
}

/** What one ReadyForQuery answers. */
type Unit = {
  withholding: Withholding | undefined
  query: string
  tag: string | null
  failed: boolean
  readonly held: Buffer[]
}

const newUnit = (): Unit => ({
  withholding: undefined,
  query: '',
  tag: null,
  failed: false,
  held: [],
})

const IDLE = 'I'.charCodeAt(0)

/** The n-th zero-terminated string of a typed message. */
const text = (bytes: Buffer, index: number): string => {
  let start = 5
  for (let skipped = 0; skipped < index; skipped += 1) start = bytes.indexOf(0, start) + 1
  return bytes.toString('utf8', start, bytes.indexOf(0, start))
}
