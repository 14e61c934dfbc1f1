import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sql } from '../store/database.ts'
import { findToken, saveToken } from '../store/tokens.ts'
import { type Authenticate, hashToken, type Identity, type Role, sameToken } from './auth.ts'

/** How long a token that was found counts without another look, in milliseconds: a revocation takes effect within it. */
const CACHE_MS = 5_000
const CACHE_MAX = 1_000

/** Checks tokens against the configured admin token and the table of API tokens. */
export function authenticator(sql: Sql, adminToken: string | null): Authenticate {
  const adminHash = adminToken === null ? null : hashToken(adminToken)
  const cache = new Map<string, { identity: Identity; until: number }>()
  return async (token) => {
    if (adminHash !== null && sameToken(token, adminHash))
      return { name: 'token:admin', role: 'admin' }
    const hash = hashToken(token)
    const known = cache.get(hash)
    if (known && known.until > performance.now()) return known.identity
    cache.delete(hash)
    const row = await findToken(sql, hash)
    if (!row) return undefined
    const identity = { name: `token:${row.name}`, role: row.role as Role }
    if (cache.size >= CACHE_MAX) cache.clear()
    cache.set(hash, { identity, until: performance.now() + CACHE_MS })
    return identity
  }
}

/**
 * The admin token when none is configured: made at the first start, stored hashed, and kept in the data directory for
 * its owner alone, so that a later start can print it again.
 */
export async function ownAdminToken(sql: Sql, dataDir: string): Promise<string> {
  const path = join(dataDir, 'admin-token')
  const token =
    (await readFile(path, 'utf8').catch(() => '')).trim() ||
    `rl_${randomBytes(24).toString('base64url')}`
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  await writeFile(path, `${token}\n`, { mode: 0o600 })
  const hash = hashToken(token)
  await saveToken(sql, { id: `tok_${hash.slice(0, 16)}`, name: 'admin', role: 'admin', hash })
  return token
}
