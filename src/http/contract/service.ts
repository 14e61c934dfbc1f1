/** The service itself: probes, documents, sessions of browsers. */
import { z } from 'zod'
import { endpoint, ROLES } from './endpoint.ts'

const text = z.string()
const HTML = { media: 'text/html', says: 'a page' } as const

export const healthz = endpoint({
  id: 'healthz',
  method: 'GET',
  path: '/healthz',
  tag: 'Service',
  role: 'none',
  does: 'the process answers',
  anyQuery: true,
  answers: { 200: z.object({ status: z.literal('ok'), version: text }) },
})

const readiness = z
  .object({
    status: z.enum(['ready', 'not_ready']),
    database: z.boolean(),
    migrations: z.boolean(),
    lease: z.boolean(),
    node: text,
  })
  .meta({ id: 'Readiness' })

export const readyz = endpoint({
  id: 'readyz',
  method: 'GET',
  path: '/readyz',
  tag: 'Service',
  role: 'none',
  does: 'database, its migrations, lease and node are fit to serve; answered within two seconds',
  anyQuery: true,
  answers: { 200: readiness, 503: readiness },
})

export const getMetrics = endpoint({
  id: 'getMetrics',
  method: 'GET',
  path: '/metrics',
  tag: 'Service',
  role: 'viewer',
  does: 'metrics of this node for Prometheus',
  anyQuery: true,
  answers: { 200: { media: 'text/plain', says: "Prometheus' text format" } },
})

export const getOpenApi = endpoint({
  id: 'getOpenApi',
  method: 'GET',
  path: '/openapi.json',
  tag: 'Service',
  role: 'none',
  does: 'this contract as OpenAPI 3.1',
  anyQuery: true,
  answers: { 200: z.looseObject({ openapi: text }) },
})

export const getDocs = endpoint({
  id: 'getDocs',
  method: 'GET',
  path: '/docs',
  tag: 'Service',
  role: 'none',
  does: 'the same as a page to read',
  anyQuery: true,
  answers: { 200: HTML },
})

export const getConsole = endpoint({
  id: 'getConsole',
  method: 'GET',
  path: '/',
  tag: 'Service',
  role: 'none',
  does: 'the console',
  answers: { 200: HTML },
})

const identity = z.object({ name: text, role: z.enum(ROLES) }).meta({ id: 'Identity' })

export const logIn = endpoint({
  id: 'logIn',
  method: 'POST',
  path: '/session',
  tag: 'Service',
  role: 'none',
  does: 'opens a session of a browser for a token: a cookie for twelve hours',
  body: z.strictObject({ token: z.string().min(1).max(8192) }),
  answers: { 201: identity },
  headers: { 'Set-Cookie': '`__Host-runlane`' },
  refuses: ['unauthorized', 'forbidden', 'rate_limited', 'keys_unavailable'],
})

export const whoAmI = endpoint({
  id: 'whoAmI',
  method: 'GET',
  path: '/session',
  tag: 'Service',
  role: 'viewer',
  does: 'who is asking, and with which role',
  answers: { 200: identity },
})

export const logOut = endpoint({
  id: 'logOut',
  method: 'DELETE',
  path: '/session',
  tag: 'Service',
  role: 'none',
  does: 'ends the session of the cookie',
  answers: { 204: null },
  refuses: ['forbidden', 'database_unavailable'],
})
