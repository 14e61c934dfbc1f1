import { createHash, timingSafeEqual } from 'node:crypto'
import type { Context, MiddlewareHandler } from 'hono'
import { Refusal } from '../errors.ts'
import type { Caller } from '../runtime/commands.ts'

export type Role = 'viewer' | 'service' | 'operator' | 'admin'

export interface Identity {
  name: string
  role: Role
}

/** Who a bearer token belongs to. */
export type Authenticate = (token: string) => Promise<Identity | undefined>

export const hashToken = (token: string): string => createHash('sha256').update(token).digest('hex')

/** Compares by hash in constant time, so that neither content nor length of the right token leaks. */
export const sameToken = (given: string, hash: string): boolean =>
  timingSafeEqual(Buffer.from(hashToken(given), 'hex'), Buffer.from(hash, 'hex'))

declare module 'hono' {
  interface ContextVariableMap {
    identity: Identity
    requestId: string
  }
}

/** Everything behind it needs a bearer token. */
export function bearerAuth(authenticate: Authenticate): MiddlewareHandler {
  return async (c, next) => {
    const header = c.req.header('authorization') ?? ''
    const token = /^Bearer +(\S+)$/i.exec(header)?.[1]
    if (token === undefined)
      throw new Refusal('unauthorized', 'send an API token: Authorization: Bearer <token>')
    const identity = await authenticate(token)
    if (!identity) throw new Refusal('unauthorized', 'this token is not known or was revoked')
    c.set('identity', identity)
    await next()
  }
}

export const callerOf = (c: Context): Caller => {
  const { name, role } = c.get('identity')
  return { name, role, requestId: c.get('requestId') }
}
