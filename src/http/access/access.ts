import { getConnInfo } from '@hono/node-server/conninfo'
import type { Context } from 'hono'
import { Refusal } from '../../errors.ts'
import type { Sql } from '../../store/database.ts'
import { findToken } from '../../store/tokens.ts'
import type { Role } from '../contract/endpoint.ts'
import type { Identity } from './identity.ts'
import { type JwtOptions, jwtVerifier, type Verified } from './jwt.ts'
import { RateLimit } from './limits.ts'
import { sessionOf, Sessions } from './sessions.ts'
import { hashToken, sameToken } from './tokens.ts'

export interface AccessOptions {
  sql: Sql
  adminToken: string | null
  jwt: JwtOptions
  /** Requests of one caller in a second. */
  rateLimit: number
}

/** How long what was found counts without another look, in milliseconds: a revocation takes effect within it. */
const CACHE_MS = 5_000
const CACHE_MAX = 1_000
/** Requests with a token that is not known, from one address in a second: each asks the database. */
const GUESSES_PER_SECOND = 1_000

/** Who may come in: API tokens, JWTs, sessions of browsers; and how often. */
export class Access {
  readonly sessions: Sessions
  #options: AccessOptions
  #adminHash: string | null
  #verify: (token: string) => Promise<Verified | undefined>
  #cache = new Map<string, { identity: Identity; until: number }>()
  #requests: RateLimit
  #guesses = new RateLimit(GUESSES_PER_SECOND)

  constructor(options: AccessOptions) {
    this.#options = options
    this.#adminHash = options.adminToken === null ? null : hashToken(options.adminToken)
    this.#verify = jwtVerifier(options.jwt)
    this.#requests = new RateLimit(options.rateLimit)
    this.sessions = new Sessions(options.sql, (hash) => this.#ofHash(hash))
  }

  /**
   * The caller of a request, who may make one more.
   * @throws Refusal unauthorized, forbidden (no role, or a page of another site), rate_limited
   */
  async admit(c: Context): Promise<Identity> {
    const identity = await this.#identify(c)
    await this.#requests.take(identity.name)
    c.set('identity', identity)
    return identity
  }

  /** @throws Refusal unauthorized, forbidden, rate_limited */
  async ofToken(c: Context, token: string): Promise<Verified> {
    if (this.#adminHash !== null && sameToken(token, this.#adminHash))
      return { name: 'token:admin', role: 'admin', until: null }
    const address = addressOf(c)
    this.#guesses.demand(address)
    const identity = (await this.#ofHash(hashToken(token))) ?? (await this.#verify(token))
    if (identity) return { until: null, ...identity }
    await this.#guesses.take(address)
    throw new Refusal('unauthorized', 'this token is not known, has expired or was revoked')
  }

  /** A token was revoked here: nothing that was found before counts. */
  forget(): void {
    this.#cache.clear()
    this.sessions.forget()
  }

  async #identify(c: Context): Promise<Identity> {
    const header = c.req.header('authorization')
    if (header === undefined) {
      const session = sessionOf(c)
      const identity = session === undefined ? undefined : await this.sessions.find(c, session)
      if (identity) return identity
      throw new Refusal('unauthorized', 'send an API token: Authorization: Bearer <token>')
    }
    const token = /^Bearer +(\S+)$/i.exec(header)?.[1]
    if (token === undefined)
      throw new Refusal('unauthorized', 'send an API token: Authorization: Bearer <token>')
    return this.ofToken(c, token)
  }

  /** The bearer of a stored token, or of the configured one. */
  async #ofHash(hash: string): Promise<Identity | undefined> {
    if (hash === this.#adminHash) return { name: 'token:admin', role: 'admin' }
    const known = this.#cache.get(hash)
    if (known && known.until > performance.now()) return known.identity
    this.#cache.delete(hash)
    const row = await findToken(this.#options.sql, hash)
    if (!row) return undefined
    const identity = { name: `token:${row.name}`, role: row.role as Role }
    if (this.#cache.size >= CACHE_MAX) this.#cache.clear()
    this.#cache.set(hash, { identity, until: performance.now() + CACHE_MS })
    return identity
  }
}

/** The other end of the connection: in front of a proxy the client, behind one the proxy. */
function addressOf(c: Context): string {
  try {
    return getConnInfo(c).remote.address ?? ''
  } catch {
    return ''
  }
}
