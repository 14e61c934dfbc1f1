import { getConnInfo } from '@hono/node-server/conninfo'
import type { Context } from 'hono'
import { Refusal, type RefusalCode } from '../../errors.ts'
import type { Sql } from '../../store/database.ts'
import { findToken } from '../../store/tokens.ts'
import type { Logger } from '../../runtime/log.ts'
import { SparingLog } from '../../sparing-log.ts'
import type { Role } from '../contract/endpoint.ts'
import type { Identity } from './identity.ts'
import { JwtRefusal } from './jwt-refusal.ts'
import { type JwtOptions, jwtVerifier, type Verified } from './jwt.ts'
import { Lately } from './lately.ts'
import { RateLimit } from './limits.ts'
import { sessionOf, Sessions } from './sessions.ts'
import { hashToken, sameToken } from './tokens.ts'
import { Vigil } from './vigil.ts'

export interface AccessOptions {
  sql: Sql
  adminToken: string | null
  jwt: JwtOptions
  /** Requests of one caller in a second. */
  rateLimit: number
  log: Logger
}

/** Requests with a token or a session that is not known, from one address in a second: each asks the database. */
const GUESSES_PER_SECOND = 1_000

/** Who may come in: API tokens, JWTs, sessions of browsers; and how often. */
export class Access {
  readonly sessions: Sessions
  #options: AccessOptions
  #adminHash: string | null
  #verify: (token: string) => Promise<Verified | undefined>
  #tokens = new Lately<Identity>()
  #requests: RateLimit
  #guesses = new RateLimit(GUESSES_PER_SECOND)
  #log: SparingLog

  constructor(options: AccessOptions) {
    this.#options = options
    this.#adminHash = options.adminToken === null ? null : hashToken(options.adminToken)
    this.#verify = jwtVerifier(options.jwt)
    this.#log = new SparingLog(options.log)
    this.#requests = new RateLimit(options.rateLimit)
    this.sessions = new Sessions({
      sql: options.sql,
      ofHash: (hash) => this.#ofHash(hash),
      ofJwt: this.#verify,
    })
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

  /** The same for a token that does not come in the header. @throws Refusal unauthorized, forbidden, rate_limited */
  async admitToken(c: Context, token: string): Promise<Verified> {
    const identity = await this.#ofToken(c, token)
    await this.#requests.take(identity.name)
    return identity
  }

  /** For an answer that takes long; `end` it with the answer. */
  vigil(c: Context): Vigil {
    return new Vigil(() => this.#holds(c))
  }

  /** Whether who was let in would be let in still. */
  async #holds(c: Context): Promise<boolean> {
    try {
      await this.#identify(c)
      return true
    } catch (error) {
      // Only a clear no counts: the database or the keys may be away for a while.
      return !(error instanceof Refusal && ENDS.has(error.code))
    }
  }

  /** A token was revoked here: what was found before is looked up again. */
  forget(): void {
    this.#tokens.expire()
    this.sessions.forget()
  }

  async #identify(c: Context): Promise<Identity> {
    const header = c.req.header('authorization')
    if (header === undefined) {
      const session = sessionOf(c)
      const identity =
        session === undefined
          ? undefined
          : await this.#guess(c, this.sessions.knows(session), () => this.sessions.find(c, session))
      if (identity) return identity
      throw new Refusal('unauthorized', 'send an API token: Authorization: Bearer <token>')
    }
    const token = /^Bearer +(\S+)$/i.exec(header)?.[1]
    if (token === undefined)
      throw new Refusal('unauthorized', 'send an API token: Authorization: Bearer <token>')
    return this.#ofToken(c, token)
  }

  async #ofToken(c: Context, token: string): Promise<Verified> {
    if (this.#adminHash !== null && sameToken(token, this.#adminHash))
      return { name: 'token:admin', role: 'admin', until: null }
    const verified = await this.#verify(token).catch((error: unknown) => this.#refused(c, error))
    if (verified) return verified
    const hash = hashToken(token)
    const identity = await this.#guess(c, this.#tokens.knows(hash), () => this.#ofHash(hash))
    if (identity) return { ...identity, until: null }
    throw new Refusal('unauthorized', 'this token is not known, has expired or was revoked')
  }

  /** A JWT that does not count is a guess as well. @throws the error, or Refusal rate_limited */
  async #refused(c: Context, error: unknown): Promise<never> {
    if (error instanceof JwtRefusal) {
      const { check } = error
      const facts = { check, request_id: c.get('requestId') }
      this.#log.tell('info', check, facts, 'a JWT was refused')
      await this.#guesses.take(addressOf(c))
    }
    throw error
  }

  /**
   * Looks in the database, unless too much was looked for in vain from that address. Whoever was found lately is looked
   * for all the same: behind a proxy all callers have one address.
   */
  async #guess<T>(
    c: Context,
    known: boolean,
    find: () => Promise<T | undefined>,
  ): Promise<T | undefined> {
    const address = addressOf(c)
    if (!known) await this.#guesses.demand(address)
    const found = await find()
    if (found === undefined) await this.#guesses.take(address)
    return found
  }

  /** The bearer of a stored token, or of the configured one. */
  async #ofHash(hash: string): Promise<Identity | undefined> {
    if (hash === this.#adminHash) return { name: 'token:admin', role: 'admin' }
    const known = this.#tokens.get(hash)
    if (known) return known
    const row = await findToken(this.#options.sql, hash)
    if (row) return this.#tokens.keep(hash, { name: `token:${row.name}`, role: row.role as Role })
    this.#tokens.forget(hash)
    return undefined
  }
}

const ENDS: ReadonlySet<string> = new Set<RefusalCode>(['unauthorized', 'forbidden'])

/** The other end of the connection: in front of a proxy the client, behind one the proxy. */
function addressOf(c: Context): string {
  try {
    return getConnInfo(c).remote.address ?? ''
  } catch {
    return ''
  }
}
