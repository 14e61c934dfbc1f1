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
import type { Role } from '../contract/endpoint.ts'
import type { Identity } from './identity.ts'
import { Lately } from './lately.ts'
import { hashToken } from './tokens.ts'

/** `__Host-`: set by this very host, over a secure connection (loopback counts as one), for all paths. */
const COOKIE = '__Host-runlane'
const SESSION_MS = 12 * 3_600_000

export const sessionOf = (c: Context): string | undefined => getCookie(c, COOKIE)

/**
 * Sessions of browsers: a cookie that scripts cannot read stands for a token. A session lives no longer than its token.
 */
export class Sessions {
  #sql: Sql
  #ofHash: (hash: string) => Promise<Identity | undefined>
  #open = new Lately<OpenSessionRow>()

  constructor(sql: Sql, ofHash: (hash: string) => Promise<Identity | undefined>) {
    this.#sql = sql
    this.#ofHash = ofHash
  }

  /** Opens one for the bearer of a token; `until`: when the token itself expires. */
  async open(
    c: Context,
    identity: Identity & { until: number | null },
    token: string,
  ): Promise<void> {
    const id = randomBytes(24).toString('base64url')
    const lastsMs = Math.min(SESSION_MS, (identity.until ?? Infinity) - Date.now())
    await saveSession(this.#sql, {
      hash: hashToken(id),
      // What a JWT says was verified once and holds until it expires; an API token can be revoked.
      token_hash: identity.name.startsWith('token:') ? hashToken(token) : null,
      name: identity.name,
      role: identity.role,
      lasts_ms: lastsMs,
    })
    setCookie(c, COOKIE, id, {
      path: '/',
      secure: true,
      httpOnly: true,
      sameSite: 'Strict',
      maxAge: Math.floor(lastsMs / 1000),
    })
  }

  /** Whose session it is. @throws Refusal forbidden when the page that asks is not one of ours */
  async find(c: Context, id: string): Promise<Identity | undefined> {
    demandOwnPage(c)
    const hash = hashToken(id)
    const row = this.#open.get(hash) ?? (await this.#look(hash))
    if (!row) return undefined
    return row.token_hash === null
      ? { name: row.name, role: row.role as Role }
      : this.#ofHash(row.token_hash)
  }

  async #look(hash: string): Promise<OpenSessionRow | undefined> {
    const row = await findSession(this.#sql, hash)
    if (row) return this.#open.keep(hash, row, row.left_ms)
    this.#open.forget(hash)
    return undefined
  }

  /** Whether it was found lately. */
  knows(id: string): boolean {
    return this.#open.knows(hashToken(id))
  }

  forget(): void {
    this.#open.expire()
  }

  async close(c: Context): Promise<void> {
    const id = sessionOf(c)
    if (id === undefined) return
    demandOwnPage(c)
    await deleteSession(this.#sql, hashToken(id))
    this.#open.forget(hashToken(id))
    deleteCookie(c, COOKIE, { path: '/', secure: true })
  }
}

/**
 * The browser says where a request comes from; a cookie alone is no proof, since a browser sends it for any page.
 * Reading by hand (the address bar says `none`) is fine; changing something needs a page of ours.
 */
export function demandOwnPage(c: Context): void {
  const site = c.req.header('sec-fetch-site')
  const reads = c.req.method === 'GET' || c.req.method === 'HEAD'
  if (site === 'same-origin' || (reads && site === 'none')) return
  throw new Refusal(
    'forbidden',
    'a session counts only for requests of its own site (Sec-Fetch-Site)',
  )
}
