import type { Hono } from 'hono'
import { Refusal } from '../errors.ts'
import type { Json } from '../json.ts'
import { listAudit, recordAudit } from '../store/audit.ts'
import { listAllNodes } from '../store/nodes.ts'
import {
  createToken,
  findTokenById,
  listTokens,
  type NameRefusal,
  revokeToken,
} from '../store/tokens.ts'
import { hashToken, newToken, tokenIdOf } from './access/tokens.ts'
import { applied, refused } from './audit.ts'
import * as contract from './contract/admin.ts'
import type { Answer, Role } from './contract/endpoint.ts'
import { makingKey, onceDeleted, onceMade } from './idempotency.ts'
import { pageOf } from './page.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** The name of the token that the service made for itself, of which each data directory has one. */
const OWN_NAME = 'admin'

const WHY: Record<NameRefusal, (name: string) => string> = {
  token_exists: (name) =>
    name === OWN_NAME
      ? `${name} is the name of the token that the service has made for itself`
      : `a token with the name ${name} is in use; {"rotate": true} revokes it and takes its place`,
  name_taken: (name) =>
    `a token with the name ${name} was revoked, and its runs are still there: {"rotate": true} takes its place, and them`,
  nothing_to_rotate: (name) => `there is and was no token with the name ${name}`,
}

/** Tokens, the audit trail, nodes. */
export function adminRoutes(app: Hono, service: Service): void {
  const { reads, access } = service
  const routes = new Routes(app, service)

  routes.on(contract.createToken, ({ c, body, caller }) => {
    const { name, role, rotate } = body
    const key = makingKey(c, caller, body)
    return onceMade<Answer<typeof contract.createToken>>(reads, key, {
      make: async () => {
        const token = newToken()
        const stored = { id: tokenIdOf(token), name, role, hash: hashToken(token) }
        const auditOf = (change: Parameters<typeof applied>[3]) =>
          applied(caller, 'token.create', name, change)
        const made =
          name === OWN_NAME
            ? 'token_exists'
            : await createToken(reads, stored, { rotate, key }, auditOf)
        if (made === 'repeated') return made
        if (typeof made === 'string') {
          await recordAudit(reads, refused(caller, 'token.create', name, made))
          throw new Refusal(made, WHY[made](name))
        }
        if (rotate) access.forget()
        return answer(201, { ...made, role, token })
      },
      // Only its hash is stored: the secret was shown in the first answer, and never again.
      again: async (id) => {
        const row = await findTokenById(reads, id)
        if (!row) throw new Refusal('not_found', `the token ${id} is gone`)
        return answer(200, { ...row, role }, { 'Idempotent-Replayed': 'true' })
      },
    })
  })

  routes.on(contract.listTokens, async () => {
    const tokens = (await listTokens(reads)).map((row) => ({ ...row, role: row.role as Role }))
    return answer(200, { tokens, next_cursor: null })
  })

  routes.on(contract.revokeToken, async ({ c, params: { id }, body, caller }) => {
    const key = makingKey(c, caller, body)
    const auditOf = (before: Json) => ({
      ...applied(caller, 'token.revoke', id, { before, after: null }),
      reason: body.reason ?? null,
    })
    const deleted = await onceDeleted(
      reads,
      key,
      () => revokeToken(reads, id, auditOf, key),
      () => new Refusal('not_found', `there is no token ${id.slice(0, 64)} in use`),
    )
    access.forget()
    return deleted
  })

  routes.on(contract.listAudit, async ({ query: { cursor, limit, ...filter } }) => {
    const before = cursor === undefined ? undefined : Number(cursor)
    const rows = await listAudit(reads, { ...filter, before, limit: limit + 1 })
    const { page, next_cursor } = pageOf(rows, limit, ({ id }) => id)
    return answer(200, { audit: page, next_cursor })
  })

  routes.on(contract.listNodes, async () =>
    answer(200, { nodes: await listAllNodes(reads), next_cursor: null }),
  )
}
