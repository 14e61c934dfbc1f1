import { connect, type Socket } from 'node:net'
import { pgFramer, type PgSession, pgSession, startCode, type Withholding } from './pg-wire.ts'

/** `host` may be the folder of a Unix socket. */
export type Upstream = { readonly host: string; readonly port: number }

/** How fast bytes go, shared by all links of a proxy. After a change of `paused` each link is pumped. */
export type Pace = { paused: boolean; delayMs: number }

export type TcpLinkOptions = {
  readonly client: Socket
  readonly upstream: Upstream
  readonly pace: Pace
  /** Asked for each statement that is about to be executed. */
  readonly watch: (query: string) => Withholding | undefined
  /** Both sides are closed. */
  readonly onGone: (link: TcpLink) => void
}

/** One client's connection through a proxy, and the connection to Postgres made for it. */
export class TcpLink {
  readonly #client: Socket
  readonly #server: Socket
  readonly #toServer: Pipe
  readonly #toClient: Pipe
  readonly #session: PgSession
  #severed = false

  constructor({ client, upstream: { host, port }, pace, watch, onGone }: TcpLinkOptions) {
    this.#client = client
    this.#server = connect({
      allowHalfOpen: true,
      noDelay: true,
      ...(host.startsWith('/') ? { path: `${host}/.s.PGSQL.${port}` } : { host, port }),
    })
    this.#session = pgSession(watch)
    this.#toServer = new Pipe(client, this.#server, pace, () => this.#server.end())
    this.#toClient = new Pipe(this.#server, client, pace, () => client.destroySoon())
    this.#receive(client, this.#toServer, this.#clientReader())
    this.#receive(this.#server, this.#toClient, this.#serverReader())
    for (const socket of [client, this.#server]) {
      socket.once('close', () => {
        if (client.closed && this.#server.closed) onGone(this)
      })
    }
    this.pump()
  }

  /** Moves what may move now. */
  pump(): void {
    this.#toServer.pump()
    this.#toClient.pump()
  }

  /** Ends both connections at once; what is under way on them is lost. */
  destroy(): void {
    this.#severed = true
    this.#toServer.clear()
    this.#toClient.clear()
    this.#client.destroy()
    this.#server.destroy()
  }

  #receive(source: Socket, pipe: Pipe, read: (chunk: Buffer) => void): void {
    source.on('data', (chunk: Buffer) => {
      if (this.#severed) return
      try {
        read(chunk)
      } catch {
        // Not the Postgres protocol: there is nothing to hope for on this connection.
        this.destroy()
      }
    })
    source.once('end', () => pipe.finish())
    source.once('close', () => pipe.finish())
    // 'close' follows, and says all there is to say.
    source.on('error', () => {})
  }

  #clientReader(): (chunk: Buffer) => void {
    const frame = pgFramer({ startup: true })
    return (chunk) => {
      const onward: Buffer[] = []
      for (const message of frame(chunk)) {
        if (message.type === '' && startCode(message.bytes) === 'encryption') {
          this.#toClient.push(Buffer.from('N'))
          continue
        }
        this.#session.fromClient(message)
        onward.push(message.bytes)
      }
      this.#toServer.push(Buffer.concat(onward))
    }
  }

  #serverReader(): (chunk: Buffer) => void {
    const frame = pgFramer({ startup: false })
    return (chunk) => {
      const onward: Buffer[] = []
      for (const message of frame(chunk)) {
        const { forward, withheld } = this.#session.fromServer(message)
        onward.push(...forward)
        if (!withheld) continue
        // Replies to statements before this one are the client's: they go out before its end.
        this.#severed = true
        this.#server.destroy()
        break
      }
      this.#toClient.push(Buffer.concat(onward))
      if (this.#severed) this.#toClient.finish()
    }
  }
}

/** One direction of a link: keeps order through delays and pauses, and pushes back on a fast source. */
class Pipe {
  readonly #source: Socket
  readonly #target: Socket
  readonly #pace: Pace
  readonly #onEnd: () => void
  /** `bytes: null` is the end. */
  #queue: { readonly due: number; readonly bytes: Buffer | null }[] = []
  #timer: NodeJS.Timeout | undefined
  #full = false
  #finished = false

  constructor(source: Socket, target: Socket, pace: Pace, onEnd: () => void) {
    this.#source = source
    this.#target = target
    this.#pace = pace
    this.#onEnd = onEnd
    target.on('drain', () => {
      this.#full = false
      this.pump()
    })
  }

  push(bytes: Buffer): void {
    if (bytes.length > 0 && !this.#finished) this.#enqueue(bytes)
  }

  /** The source has ended: `onEnd` is called when everything before is delivered. */
  finish(): void {
    if (this.#finished) return
    this.#finished = true
    this.#enqueue(null)
  }

  clear(): void {
    this.#finished = true
    this.#queue = []
    clearTimeout(this.#timer)
  }

  pump(): void {
    clearTimeout(this.#timer)
    while (!this.#pace.paused && !this.#full) {
      const [head] = this.#queue
      if (head === undefined) break
      const early = head.due - performance.now()
      if (early > 0) {
        this.#timer = setTimeout(() => this.pump(), early)
        break
      }
      this.#queue.shift()
      if (head.bytes === null) this.#onEnd()
      else this.#full = !this.#target.write(head.bytes)
    }
    if (this.#pace.paused || this.#full || this.#queue.length > QUEUE_LIMIT) this.#source.pause()
    else this.#source.resume()
  }

  #enqueue(bytes: Buffer | null): void {
    // Never before what is already waiting, also when the delay became shorter since.
    const due = Math.max(performance.now() + this.#pace.delayMs, this.#queue.at(-1)?.due ?? 0)
    this.#queue.push({ due, bytes })
    this.pump()
  }
}

/** Chunks; more stay in the source's socket. */
const QUEUE_LIMIT = 256
