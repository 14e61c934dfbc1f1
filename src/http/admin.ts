import type { Hono } from 'hono'
import { Refusal } from '../errors.ts'
import { listAudit, recordAudit } from '../store/audit.ts'
import { listAllNodes } from '../store/nodes.ts'
import { createToken, findTokenById, listTokens, revokeToken } from '../store/tokens.ts'
import { hashToken, newToken, tokenIdOf } from './access/tokens.ts'
import { applied, refused } from './audit.ts'
import * as contract from './contract/admin.ts'
import type { Answer, Role } from './contract/endpoint.ts'
import { makingKey, onceMade } from './idempotency.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** The name of the token that the service made for itself, of which each data directory has one. */
const OWN_NAME = 'admin'

/** Tokens, the audit trail, nodes. */
export function adminRoutes(app: Hono, service: Service): void {
  const { reads, access } = service
  const routes = new Routes(app, service)

  routes.on(contract.createToken, ({ c, body, caller }) => {
    const { name, role } = body
    const key = makingKey(c, caller, body)
    return onceMade<Answer<typeof contract.createToken>>(reads, key, {
      make: async () => {
        const token = newToken()
        const stored = { id: tokenIdOf(token), name, role, hash: hashToken(token) }
        const row =
          name === OWN_NAME
            ? undefined
            : await createToken(reads, stored, applied(caller, 'token.create', name), key)
        if (row === 'repeated') return row
        if (row) return answer(201, { ...row, role, token })
        await recordAudit(reads, refused(caller, 'token.create', name, 'token_exists'))
        throw new Refusal('token_exists', `a token with the name ${name} is in use`)
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

  routes.on(contract.revokeToken, async ({ params: { id }, caller }) => {
    const revoked = await revokeToken(reads, id, applied(caller, 'token.revoke', id))
    if (!revoked) throw new Refusal('not_found', `there is no token ${id.slice(0, 64)} in use`)
    access.forget()
    return { status: 204 as const }
  })

  routes.on(contract.listAudit, async ({ query: { cursor, ...filter } }) => {
    const audit = await listAudit(reads, {
      ...filter,
      before: cursor === undefined ? undefined : Number(cursor),
    })
    const next_cursor = audit.length === filter.limit ? String(audit.at(-1)?.id) : null
    return answer(200, { audit, next_cursor })
  })

  routes.on(contract.listNodes, async () =>
    answer(200, { nodes: await listAllNodes(reads), next_cursor: null }),
  )
}
