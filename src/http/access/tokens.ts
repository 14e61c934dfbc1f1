import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sql } from '../../store/database.ts'
import { saveToken } from '../../store/tokens.ts'

export const hashToken = (token: string): string => createHash('sha256').update(token).digest('hex')

/** Compares by hash in constant time, so that neither content nor length of the right token leaks. */
export const sameToken = (given: string, hash: string): boolean =>
  timingSafeEqual(Buffer.from(hashToken(given), 'hex'), Buffer.from(hash, 'hex'))

/** 192 bits of chance: stored as a plain hash, since nobody can try them out. */
export const newToken = (): string => `rl_${randomBytes(24).toString('base64url')}`

export const tokenIdOf = (token: string): string => `tok_${hashToken(token).slice(0, 16)}`

/**
 * The admin token when none is configured: made at the first start, stored hashed, and kept in the data directory for
 * its owner alone, so that a later start can print it again. Once it was revoked, the next start makes another.
 */
export async function ownAdminToken(sql: Sql, dataDir: string): Promise<string> {
  const path = join(dataDir, 'admin-token')
  const kept = (await readFile(path, 'utf8').catch(() => '')).trim()
  if (kept !== '' && (await saveAdmin(sql, kept))) return kept
  const token = newToken()
  await mkdir(dataDir, { recursive: true, mode: 0o700 })
  await writeFile(path, `${token}\n`, { mode: 0o600 })
  await saveAdmin(sql, token)
  return token
}

const saveAdmin = (sql: Sql, token: string): Promise<boolean> =>
  saveToken(sql, { id: tokenIdOf(token), name: 'admin', role: 'admin', hash: hashToken(token) })
