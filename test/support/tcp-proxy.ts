import { type AddressInfo, createServer } from 'node:net'
import type { PgReply, Withholding } from './pg-wire.ts'
import { type Pace, TcpLink, type Upstream } from './tcp-link.ts'

/**
 * A proxy on a free port of 127.0.0.1 between a client and Postgres, to break their connection in every
 * way a network can. It reads the protocol, so it declines encryption itself (`N`), and it forwards
 * whole messages only.
 */
export const startTcpProxy = async (upstream: Upstream): Promise<TcpProxy> => {
  const links = new Set<TcpLink>()
  const drops = new Set<Drop>()
  const pace: Pace = { paused: false, delayMs: 0 }
  const counts = { accepted: 0, refused: 0 }
  let refusing = false

  const watch = (query: string): Withholding | undefined =>
    drops.values().find((drop) => drop.claims(query))
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    if (refusing) {
      counts.refused += 1
      client.resetAndDestroy()
      return
    }
    counts.accepted += 1
    links.add(new TcpLink({ client, upstream, pace, watch, onGone: (link) => links.delete(link) }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo

  const setPaused = (paused: boolean): void => {
    pace.paused = paused
    for (const link of links) link.pump()
  }
  const arm = (options: DropOptions): ReplyDrop => {
    const drop = new Drop(options, () => drops.delete(drop))
    drops.add(drop)
    return drop
  }
  const cutAll = (): void => {
    for (const link of links) link.destroy()
  }

  return {
    port,
    url: (databaseUrl) => rewritten(databaseUrl, port),
    open: () => links.size,
    accepted: () => counts.accepted,
    refused: () => counts.refused,
    cutAll,
    refuse: (refused) => {
      refusing = refused
    },
    pause: () => setPaused(true),
    resume: () => setPaused(false),
    delay: (ms) => {
      pace.delayMs = ms
    },
    dropNextReplyMatching: (matches, count = 1) => arm({ matches, count, accepts: () => true }),
    dropNextCommitReply: (count = 1) => arm({ matches: isCommit, count, accepts: hasCommitted }),
    close: async () => {
      for (const drop of drops) drop.disarm()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      cutAll()
      await closed
    },
  }
}

export type TcpProxy = {
  readonly port: number
  /** The same database by way of the proxy. */
  url(databaseUrl: string): string
  /** Connections now. */
  open(): number
  /** Connections so far that were let in, and that `refuse` turned away. */
  accepted(): number
  refused(): number
  /** Destroys every connection, with whatever is under way on it. New ones are still accepted. */
  cutAll(): void
  /** While on, new connections are reset as soon as they are made. */
  refuse(refused: boolean): void
  /** Stops forwarding both ways, as a network that loses packets does; nothing is lost, or noticed. */
  pause(): void
  resume(): void
  /** Forwards everything so much later, each way; 0 ends it. */
  delay(ms: number): void
  /**
   * Lets the server execute the next `count` statements whose text `matches`, then withholds the reply
   * and destroys the connection: the client can't know. A statement that fails doesn't count: its
   * error is passed on.
   */
  dropNextReplyMatching(matches: (queryText: string) => boolean, count?: number): ReplyDrop
  /**
   * The same for what commits: `runlane.commit(…)` on its own, or `commit`. One inside a transaction
   * block doesn't count, the `commit` after it does.
   */
  dropNextCommitReply(count?: number): ReplyDrop
  /** Cuts everything and stops listening. */
  close(): Promise<void>
}

export type ReplyDrop = {
  /** Resolves when all wanted replies were dropped; rejects when disarmed, or the proxy closed, before. */
  readonly dropped: Promise<readonly PgReply[]>
  /** Dropped so far. */
  readonly replies: readonly PgReply[]
  /** No more drops. */
  disarm(): void
}

/** Where `databaseUrl` points to, for `startTcpProxy`. */
export const upstreamOf = (databaseUrl: string): Upstream => {
  const url = new URL(databaseUrl)
  const host = url.searchParams.get('host') ?? (decodeURIComponent(url.hostname) || '127.0.0.1')
  return { host, port: Number(url.port || url.searchParams.get('port') || 5432) }
}

const rewritten = (databaseUrl: string, port: number): string => {
  const url = new URL(databaseUrl)
  url.hostname = '127.0.0.1'
  url.port = String(port)
  for (const name of ['host', 'port']) url.searchParams.delete(name)
  return url.href
}

// A migration that creates runlane.commit() mentions it too, so the statement must begin as a query.
const isCommit = (query: string): boolean =>
  /^\s*(select|with)\b[\s\S]*\brunlane\.commit\s*\(/i.test(query) ||
  /^\s*(commit|end)\b/i.test(query)

// `commit` in a transaction that failed answers ROLLBACK.
const hasCommitted = (reply: PgReply): boolean => !reply.inTransaction && reply.tag !== 'ROLLBACK'

type DropOptions = {
  readonly matches: (query: string) => boolean
  readonly accepts: (reply: PgReply) => boolean
  readonly count: number
}

class Drop implements ReplyDrop, Withholding {
  readonly dropped: Promise<readonly PgReply[]>
  readonly replies: PgReply[] = []
  readonly #options: DropOptions
  readonly #settled = Promise.withResolvers<readonly PgReply[]>()
  readonly #onDone: () => void
  #disarmed = false

  constructor(options: DropOptions, onDone: () => void) {
    this.#options = options
    this.#onDone = onDone
    this.dropped = this.#settled.promise
    // A test that counts `replies` need not await `dropped`.
    this.dropped.catch(() => {})
  }

  claims(query: string): boolean {
    const { count, matches } = this.#options
    return this.replies.length < count && matches(query)
  }

  withhold(reply: PgReply): boolean {
    const { accepts, count } = this.#options
    if (this.#disarmed || this.replies.length >= count) return false
    if (reply.failed || !accepts(reply)) return false
    this.replies.push(reply)
    if (this.replies.length === count) {
      this.#onDone()
      this.#settled.resolve(this.replies)
    }
    return true
  }

  disarm(): void {
    this.#disarmed = true
    this.#onDone()
    const { length } = this.replies
    this.#settled.reject(new Error(`disarmed after ${length} of ${this.#options.count} replies`))
  }
}
