import { randomBytes } from 'node:crypto'
import type { Context } from 'hono'
import { deleteCookie, getCookie, setCookie } from 'hono/cookie'
import { Refusal } from '../../errors.ts'
import type { Sql } from '../../store/database.ts'
import {
  deleteSession,
  findSession,
  type OpenSessionRow,
  saveSession,
} from '../../store/sessions.ts'
import { invalid } from '../body.ts'
import type { Identity } from './identity.ts'
import { Lately } from './lately.ts'
import { hashToken } from './tokens.ts'

/** `__Host-`: set by this very host, over a secure connection (loopback counts as one), for all paths. */
const COOKIE = '__Host-runlane'
const SESSION_MS = 12 * 3_600_000

/** Browsers drop cookies of more than 4,096 bytes, name and attributes included. */
const JWT_LENGTH_MAX = 3_900

/** A session as its cookie has it: the id, and after a dot the JWT that it was opened with. */
interface Cookie {
  id: string
  jwt: string | null
}

export function sessionOf(c: Context): Cookie | undefined {
  const value = getCookie(c, COOKIE)
  if (value === undefined) return undefined
  const dot = value.indexOf('.')
  return dot < 0 ? { id: value, jwt: null } : { id: value.slice(0, dot), jwt: value.slice(dot + 1) }
}

interface SessionsOptions {
  sql: Sql
  /** The bearer of an API token, while it counts. */
  ofHash: (hash: string) => Promise<Identity | undefined>
  /** The bearer of a JWT, while it counts. @throws Refusal */
  ofJwt: (jwt: string) => Promise<Identity | undefined>
}

/**
 * Sessions of browsers: a cookie that scripts cannot read stands for a token. A session lives no longer than its token: an
 * API token is looked for by its hash, a JWT, which nobody keeps here, comes along in the cookie and is verified each time,
 * by the keys of that moment.
 */
export class Sessions {
  #options: SessionsOptions
  #open = new Lately<OpenSessionRow>()

  constructor(options: SessionsOptions) {
    this.#options = options
  }

  /** Opens one for the bearer of a token; `until`: when the token itself expires. */
  async open(
    c: Context,
    identity: Identity & { until: number | null },
    token: string,
  ): Promise<void> {
    const isStored = identity.name.startsWith('token:')
    if (!isStored && token.length > JWT_LENGTH_MAX)
      throw invalid([
        { path: 'token', message: `must have at most ${JWT_LENGTH_MAX} characters for a session` },
      ])
    const id = randomBytes(24).toString('base64url')
    const lastsMs = Math.min(SESSION_MS, (identity.until ?? Infinity) - Date.now())
    await saveSession(this.#options.sql, {
      hash: hashToken(id),
      token_hash: isStored ? hashToken(token) : null,
      name: identity.name,
      role: identity.role,
      lasts_ms: lastsMs,
    })
    setCookie(c, COOKIE, isStored ? id : `${id}.${token}`, {
      path: '/',
      secure: true,
      httpOnly: true,
      sameSite: 'Strict',
      maxAge: Math.floor(lastsMs / 1000),
    })
  }

  /** Whose session it is. @throws Refusal forbidden when the page that asks is not one of ours */
  async find(c: Context, { id, jwt }: Cookie): Promise<Identity | undefined> {
    demandOwnPage(c)
    const hash = hashToken(id)
    const row = this.#open.get(hash) ?? (await this.#look(hash))
    if (!row) return undefined
    const { ofHash, ofJwt } = this.#options
    if (row.token_hash !== null) return ofHash(row.token_hash)
    const identity = jwt === null ? undefined : await ofJwt(jwt)
    return identity?.name === row.name ? { name: identity.name, role: identity.role } : undefined
  }

  async #look(hash: string): Promise<OpenSessionRow | undefined> {
    const row = await findSession(this.#options.sql, hash)
    if (row) return this.#open.keep(hash, row, row.left_ms)
    this.#open.forget(hash)
    return undefined
  }

  /** Whether it was found lately. */
  knows({ id }: Cookie): boolean {
    return this.#open.knows(hashToken(id))
  }

  forget(): void {
    this.#open.expire()
  }

  async close(c: Context): Promise<void> {
    const cookie = sessionOf(c)
    if (cookie === undefined) return
    demandOwnPage(c)
    const hash = hashToken(cookie.id)
    await deleteSession(this.#options.sql, hash)
    this.#open.forget(hash)
    deleteCookie(c, COOKIE, { path: '/', secure: true })
  }
}

/**
 * The browser says where a request comes from; a cookie alone is no proof, since a browser sends it for any page.
 * Reading by hand is fine (the address bar says `none`, a program nothing); changing something needs a page of ours.
 */
export function demandOwnPage(c: Context): void {
  const site = c.req.header('sec-fetch-site')
  const reads = c.req.method === 'GET' || c.req.method === 'HEAD'
  if (site === 'same-origin' || (reads && (site ?? 'none') === 'none')) return
  throw new Refusal(
    'forbidden',
    'a session counts only for requests of its own site (Sec-Fetch-Site)',
  )
}
