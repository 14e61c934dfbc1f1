import { afterAll, expect, test } from 'vitest'
import { freshDatabase } from '../support/fresh-database.ts'
import { api } from '../support/api.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

const service = await startService({
  databaseUrl: await freshDatabase(),
  env: { RUNLANE_BODY_LIMIT: '10kb' },
})
afterAll(() => service.kill())
const admin = api(service)
const run = await admin.createRun(scripted([{ return: 1 }], { conversation_id: 'c1' }))
await admin.waitForRun(run.run_id)
const { token: viewer } = (await admin.post('/api/v1/admin/tokens', { name: 'v', role: 'viewer' }))
  .body
const { id } = (await admin.post('/api/v1/admin/tokens', { name: 'x', role: 'viewer' })).body

type Kind = [what: string, status: number, type: string | null, path: string, init?: Init]
type Init = { method?: string; body?: string; token?: string; accept?: string }
const PROBLEM = 'application/problem+json'
const kinds: Kind[] = [
  ['JSON', 200, 'application/json', '/runs'],
  [
    'a run that was posted',
    202,
    'application/json',
    '/runs',
    { body: JSON.stringify(scripted([])) },
  ],
  [
    'a log-in',
    201,
    'application/json',
    '/session',
    { body: JSON.stringify({ token: viewer }), token: '' },
  ],
  ['no content', 204, null, `/api/v1/admin/tokens/${id}`, { method: 'DELETE' }],
  ['a stream', 200, 'text/event-stream', `/runs/${run.run_id}/agent-events`],
  ['a fragment', 200, 'text/html', '/conversations/c1/agent-status', { accept: 'text/html' }],
  ['a diagram', 200, 'image/svg+xml', '/machines/run.svg'],
  ['a diagram in Mermaid', 200, 'text/plain', '/machines/run.mmd'],
  ['the console', 200, 'text/html', '/', { token: '' }],
  ['a file of the console', 200, 'text/javascript', '/console/console.js', { token: '' }],
  ['the documents', 200, 'text/html', '/docs', { token: '' }],
  ['the contract', 200, 'application/json', '/openapi.json', { token: '' }],
  ['a probe', 200, 'application/json', '/healthz', { token: '' }],
  ['400', 400, PROBLEM, '/runs', { body: '{' }],
  ['401', 401, PROBLEM, '/runs', { token: 'no' }],
  ['403', 403, PROBLEM, '/api/v1/admin/nodes', { token: viewer }],
  ['404 of a run', 404, PROBLEM, '/runs/run_none'],
  ['404 of a path', 404, PROBLEM, '/not/a/route'],
  ['404 of a path with a NUL', 404, PROBLEM, '/runs/%00'],
  ['409', 409, PROBLEM, `/runs/${run.run_id}/cancel`, { body: '{}' }],
  ['413', 413, PROBLEM, '/runs', { body: `"${'x'.repeat(20_000)}"` }],
  ['422', 422, PROBLEM, '/runs?limit=0'],
]

test.each(kinds)('%s comes with headers that keep browsers from misusing it', async (...kind) => {
  const [, status, type, path, { method, body, token = service.token, accept } = {}] = kind
  const response = await fetch(service.url + path, {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    ...(body === undefined ? {} : { body }),
    headers: {
      ...(token === '' ? {} : { authorization: `Bearer ${token}` }),
      ...(accept === undefined ? {} : { accept }),
    },
  })
  await response.body?.cancel()

  expect(response.status).toBe(status)
  expect(response.headers.get('content-type')?.split(';')[0] ?? null).toBe(type)
  const policy = response.headers.get('content-security-policy') ?? ''
  expect(policy.split(/; */)).toEqual(
    expect.arrayContaining(["default-src 'self'", "frame-ancestors 'none'"]),
  )
  expect(policy).not.toMatch(/script-src|unsafe-eval/)
  expect(Object.fromEntries(response.headers)).toMatchObject({
    'x-content-type-options': 'nosniff',
    'x-frame-options': expect.stringMatching(/^(DENY|SAMEORIGIN)$/),
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin',
    'cross-origin-opener-policy': 'same-origin',
    'x-request-id': expect.stringMatching(/\S/),
  })
  // No page of another site may read it, whoever is logged in.
  expect(response.headers.get('access-control-allow-origin')).toBeNull()
  expect(response.headers.get('x-powered-by')).toBeNull()
})

test.each(kinds.filter(([, , , , init]) => init?.token !== '' || init.body !== undefined))(
  '%s is kept by nobody on its way',
  async (...kind) => {
    const [, , type, path, { method, body, token = service.token, accept } = {}] = kind
    const response = await fetch(service.url + path, {
      method: method ?? (body === undefined ? 'GET' : 'POST'),
      ...(body === undefined ? {} : { body }),
      headers: {
        ...(token === '' ? {} : { authorization: `Bearer ${token}` }),
        ...(accept === undefined ? {} : { accept }),
      },
    })
    await response.body?.cancel()

    // A stream must not be kept back or changed on its way either.
    const wanted = type === 'text/event-stream' ? 'no-cache, no-transform' : 'no-store'
    if (response.ok) expect(response.headers.get('cache-control')).toBe(wanted)
  },
)
