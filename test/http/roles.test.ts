import { randomUUID } from 'node:crypto'
import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { ENDPOINTS } from '../../src/http/contract/all.ts'
import { type Api, api } from '../support/api.ts'
import { contractOf, filled, type Route, routesOf } from '../support/contract.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { bySecretKey, SECRET } from '../support/jwt.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const MANY = ['/runs/batch', '/runs/bulk']
const ROLES = ['viewer', 'service', 'operator', 'admin']

const databaseUrl = await freshDatabase()
const service = await startService({
  databaseUrl,
  env: { RUNLANE_JWT_SECRET: SECRET, RUNLANE_RATE_LIMIT: '1000000' },
})
afterAll(() => service.kill())
const sql = postgres(databaseUrl, { max: 2 })
afterAll(() => sql.end())
const admin = api(service)

const contract = await contractOf(service.url)
const routes = routesOf(contract)

const newToken = async (name: string, role: string) =>
  (await admin.post('/api/v1/admin/tokens', { name, role })).body as { id: string; token: string }

const ours = await newToken('ours', 'service')
const revoked = await newToken('revoked', 'admin')
await admin.request('DELETE', `/api/v1/admin/tokens/${revoked.id}`)

type Caller = {
  readonly token: string | undefined
  /** Undefined: who it is, is not known. */
  readonly role?: string
  readonly actor?: string
  readonly own?: boolean
  readonly refused: number | null
}

/** `refused`: what answers whatever the route, `null` where that depends on the role. */
const callers: Record<string, Caller> = {
  nobody: { token: undefined, refused: 401 },
  'a revoked token': { token: revoked.token, refused: 401 },
  'a JWT without a role': {
    token: await bySecretKey({ sub: 'nemo', role: undefined }),
    refused: 403,
  },
  'a viewer': {
    ...known('token:viewer', 'viewer'),
    token: (await newToken('viewer', 'viewer')).token,
  },
  'the service whose run it is': {
    ...known('token:ours', 'service'),
    token: ours.token,
    own: true,
  },
  'another service': {
    ...known('user:other', 'service'),
    token: await bySecretKey({ sub: 'other', role: 'ROLE_SERVICE' }),
  },
  'an operator': {
    ...known('user:olga', 'operator'),
    token: await bySecretKey({ sub: 'olga', role: undefined, roles: ['ROLE_OPERATOR'] }),
  },
  'an admin': { ...known('token:boss', 'admin'), token: (await newToken('boss', 'admin')).token },
}

function known(actor: string, role: string) {
  return { actor, role, refused: null }
}

/** Bodies that can be carried out on the target; nothing else is sent with a body. */
const bodies: Record<string, (target: Record<string, string>) => unknown> = {
  postRun: () => scripted([]),
  postRuns: () => ({ runs: [scripted([])] }),
  respond: () => ({ answer: { outcome: 'retry' } }),
  declareAgent: () => ({ name: `declared-${randomUUID()}`, models: ['openai:gpt-5.2'] }),
  createToken: () => ({ name: `token-${randomUUID()}`, role: 'viewer' }),
  logIn: () => ({ token: ours.token }),
  extendRun: () => ({ by: '1m' }),
  signal: () => ({ name: 'approve', data: { by: 'ana' } }),
  forkRun: ({ run_id }) => ({ checkpoint_id: `${run_id}.3` }),
  recycleRun: () => ({ force: true }),
  bulkRuns: () => ({
    ...{ action: 'cancel', filter: { queue: 'nowhere' }, reason: 'spring', dry_run: false },
  }),
}
/** What cannot be done in the state that things are in here, although the caller may. */
const refusals: Record<string, number> = { respond: 409, interruptSubagent: 409 }

const owner: Api = api({ url: service.url, token: ours.token })
const ended = await owner.createRun(scripted([{ fail: 'no luck' }], { conversation_id: 'ended' }))
await owner.waitForRun(ended.run_id)

/** What a request is about: made for it alone where the operation changes something. */
const targetOf = async ({ method, path, operation }: Route): Promise<Record<string, string>> => {
  const changes = method !== 'GET'
  if (path.startsWith('/api/v1/admin/tokens/'))
    return { id: (await newToken(`target-${randomUUID()}`, 'viewer')).id }
  if (path.startsWith('/agents/')) {
    if (!changes) return { name: 'scripted' }
    const agent = bodies['declareAgent']?.({}) as { name: string }
    await admin.post('/agents', agent)
    return { name: agent.name }
  }
  if (path.startsWith('/machines/')) return { file: 'run' }
  if (!changes || operation.operationId === 'respond')
    return { run_id: ended.run_id, id: ended.conversation_id, conversation_id: 'ended' }
  const step = operation.operationId === 'resumeRun' ? { fail: 'no luck' } : { think: 600_000 }
  const { run_id, conversation_id } = await owner.createRun(scripted([step]))
  const settled = step.fail === undefined ? 'running' : 'failed'
  await owner.waitForRun(run_id, { until: ({ status }) => status === settled })
  return { run_id, id: conversation_id, conversation_id }
}

const expectedOf = (caller: Caller, { operation }: Route): number | null => {
  const least = operation['x-role']
  if (least === 'none') return null
  if (caller.refused !== null) return caller.refused
  if (ROLES.indexOf(caller.role ?? '') < ROLES.indexOf(least)) return 403
  return operation['x-own-runs'] && caller.role === 'service' && !caller.own ? 403 : null
}

const ask = async (
  route: Route,
  target: Record<string, string>,
  token: string | undefined,
  requestId: string,
) => {
  const aborter = new AbortController()
  const body = bodies[route.operation.operationId]?.(target)
  const response = await fetch(service.url + filled(route.path, target), {
    method: route.method,
    headers: {
      'x-request-id': requestId,
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: aborter.signal,
  })
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream')
  const text = isStream ? '' : await response.text()
  if (isStream) aborter.abort()
  const isProblem = response.headers.get('content-type') === 'application/problem+json'
  const { status, headers } = response
  return { status, headers, body: isProblem ? JSON.parse(text) : text }
}

/** Rows of all tables but the audit trail and who reads streams: a refused request leaves them as they are. */
const rowCounts = async (): Promise<Record<string, number>> => {
  const tables = await sql<
    { name: string }[]
  >`select table_name as name from information_schema.tables
    where table_schema = 'runlane' and table_name not in ('audit_events', 'readers')`
  const counts = await Promise.all(
    tables.map(async ({ name }) => {
      const [row] = await sql`select count(*)::int as n from ${sql(`runlane.${name}`)}`
      return [name, row?.['n']] as const
    }),
  )
  return Object.fromEntries(counts)
}

const states = (): Promise<unknown> =>
  sql`select run_id, status, cancel_requested_at, attempt from runlane.agent_runs order by run_id`

/** Settles once no run of the requests before goes on by itself: only those that think are left. */
const atRest = (): Promise<unknown> =>
  eventually(async () => {
    const moving = await sql`select r.run_id from runlane.agent_runs r
      join runlane.agent_run_payloads p using (run_id)
      where r.ended_at is null and (r.status <> 'running' or r.cancel_requested_at is not null
        or p.input::text not like '%think%')`
    return moving.length === 0
  })

const auditOf = (requestId: string) =>
  sql<Record<string, unknown>[]>`select actor, role, action, target, outcome, code
    from runlane.audit_events where request_id = ${requestId}`

test('the document has every operation of the contract', () => {
  const documented = routes.map(({ operation }) => operation.operationId)
  expect(documented.toSorted()).toEqual(ENDPOINTS.map(({ id }) => id).toSorted())
})

describe.each(routes.map((route) => [route.name, route] as const))('%s', (_name, route) => {
  test.each(Object.entries(callers))('from %s', async (_who, caller) => {
    const { operation } = route
    const target = await targetOf(route)
    const path = filled(route.path, target)
    const expected = expectedOf(caller, route)
    const requestId = randomUUID()
    if (expected !== null) await atRest()
    const before = expected === null ? null : [await rowCounts(), await states()]

    const response = await ask(route, target, caller.token, requestId)

    const action = operation['x-audit']
    if (expected === null) {
      const wanted = refusals[operation.operationId]
      expect({ status: response.status }).toEqual({
        status: wanted ?? expect.toSatisfy((status: number) => status >= 200 && status < 300),
      })
      if (action === undefined) return
      const [row, ...more] = await eventually(async () => {
        const rows = await auditOf(requestId)
        return rows.length > 0 && rows
      })
      expect(more).toEqual([])
      const outcome = wanted === undefined ? 'applied' : 'refused'
      expect(row).toMatchObject({ actor: caller.actor, role: caller.role, action, outcome })
      return
    }
    expectProblem(response, {
      status: expected,
      code: expected === 401 ? 'unauthorized' : 'forbidden',
    })
    expect([await rowCounts(), await states()]).toEqual(before)
    const isAudited = action !== undefined && caller.role !== undefined
    expect(await auditOf(requestId)).toEqual(
      isAudited
        ? [
            {
              actor: caller.actor,
              role: caller.role,
              action,
              target: Object.values(target).find((value) => path.includes(value)) ?? path,
              outcome: 'refused',
              code: 'forbidden',
            },
          ]
        : [],
    )
  })
})

describe('an action on what is not there is refused, and the audit trail says so', () => {
  const audited = routes.filter(
    ({ path, operation }) => operation['x-audit'] !== undefined && path.includes('{'),
  )
  test.each(audited.map((route) => [route.name, route] as const))('%s', async (_name, route) => {
    const requestId = randomUUID()
    const nothing = { run_id: 'run_none', id: 'none', name: 'none', conversation_id: 'none' }

    const response = await ask(route, nothing, service.token, requestId)

    expectProblem(response, { status: 404, code: 'not_found' })
    expect(await auditOf(requestId)).toMatchObject([
      { actor: 'token:admin', action: route.operation['x-audit'], code: 'not_found' },
    ])
  })
})

test('a method that a path does not have is 405 with those that it has, and 401 for nobody', async () => {
  const paths = [...new Set(routes.map(({ path }) => path))]
  for (const path of paths) {
    const target = filled(path, {
      run_id: 'run_none',
      id: 'none',
      name: 'none',
      file: 'run',
      conversation_id: 'none',
    })
    // These are posted to where a run of that id would be read.
    const methods = routes
      .filter((one) => one.path === path || (MANY.includes(path) && one.path === '/runs/{run_id}'))
      .flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))
    const wrong = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'].filter(
      (method) => !methods.includes(method),
    )
    for (const method of wrong) {
      const response = await admin.request(method, target)
      expectProblem(response, { status: 405, code: 'method_not_allowed' })
      const allowed = response.headers.get('allow')?.split(', ')
      expect(allowed?.toSorted(), `${method} ${path}`).toEqual(methods.toSorted())
      const refused = await api({ url: service.url }).request(method, target)
      expectProblem(refused, { status: 401, code: 'unauthorized' })
    }
  }
})

test('so it is with the files of the console; a path that is nowhere is 404', async () => {
  const style = await admin.post('/console/console.css', {})
  expectProblem(style, { status: 405, code: 'method_not_allowed' })
  expect(style.headers.get('allow')).toBe('GET, HEAD')
  for (const method of ['GET', 'PATCH', 'POST'])
    expectProblem(await admin.request(method, '/nowhere'), { status: 404, code: 'not_found' })
  expectProblem(await admin.get('/console/store/none.js'), { status: 404, code: 'not_found' })
})
