/** Tokens, the audit trail, nodes. */
import { z } from 'zod'
import { endpoint, ROLES } from './endpoint.ts'
import { listOf, node } from './objects.ts'
import { auditCursor, id, instant, json, limit, reason, time } from './values.ts'

const text = z.string()
const role = z.enum(ROLES)
const tokenFields = { id: text, name: text, role, created_at: time, revoked_at: time.nullable() }
const apiToken = z.object(tokenFields).meta({ id: 'ApiToken' })

export const createToken = endpoint({
  id: 'createToken',
  method: 'POST',
  path: '/api/v1/admin/tokens',
  tag: 'Administration',
  role: 'admin',
  audits: 'token.create',
  does: 'makes an API token: 201; its `token` is shown once and stored hashed; with an `Idempotency-Key` seen before 200 and the same without its `token`',
  keyed: true,
  body: z.strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}$/, 'must be 1 to 100 letters, digits, _ - . or @')
      .meta({ description: 'what `created_by` and audit rows call its bearer: `token:<name>`' }),
    role,
    rotate: z.boolean().default(false).meta({
      description:
        'takes the place of the token that has, or had, this name, and its runs; the one in use is revoked at once',
    }),
  }),
  answers: {
    201: z.object({ ...tokenFields, token: text }).meta({ id: 'NewApiToken' }),
    200: apiToken,
  },
  refuses: ['token_exists', 'name_taken', 'nothing_to_rotate'],
})

export const listTokens = endpoint({
  id: 'listTokens',
  method: 'GET',
  path: '/api/v1/admin/tokens',
  tag: 'Administration',
  role: 'admin',
  does: 'the API tokens, without their secrets',
  answers: { 200: listOf('tokens', apiToken) },
})

export const revokeToken = endpoint({
  id: 'revokeToken',
  method: 'DELETE',
  path: '/api/v1/admin/tokens/{id}',
  tag: 'Administration',
  role: 'admin',
  audits: 'token.revoke',
  does: 'revokes a token, and ends its sessions, streams and waits within five seconds',
  keyed: true,
  body: z.strictObject({ reason }),
  answers: { 204: null },
})

const auditRow = z
  .object({
    id: z.number().int(),
    at: time,
    actor: text,
    role: text,
    action: text,
    target: text,
    run_id: text.nullable(),
    reason: text.nullable(),
    outcome: z.enum(['applied', 'refused']).meta({ description: '`refused`: nothing was done' }),
    code: text.nullable().meta({
      description:
        'why it was refused, such as `not_stuck` or `shadow`; or how it was applied: `forced`',
    }),
    request_id: text.nullable(),
    before: json.meta({
      description: 'what the action changed, as it was; null where nothing was there',
    }),
    after: json.meta({
      description:
        'the same as the action left it; null where nothing is left, or the action was refused',
    }),
    hash: text.meta({ description: 'SHA-256 of this row and the hash of the row before it' }),
  })
  .meta({ id: 'AuditRow' })

export const listAudit = endpoint({
  id: 'listAudit',
  method: 'GET',
  path: '/api/v1/admin/audit',
  tag: 'Administration',
  role: 'admin',
  does: 'who did what, newest first; filters `action actor since`',
  query: z.strictObject({
    limit,
    cursor: auditCursor,
    action: id.optional(),
    actor: id.optional(),
    since: instant.optional(),
  }),
  answers: { 200: listOf('audit', auditRow) },
})

export const listNodes = endpoint({
  id: 'listNodes',
  method: 'GET',
  path: '/api/v1/admin/nodes',
  tag: 'Administration',
  role: 'admin',
  does: 'the replicas that serve or have served within a day',
  answers: {
    200: listOf('nodes', node),
  },
})
