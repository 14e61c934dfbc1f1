import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
const service = await startService({ databaseUrl })
const { request, get, post, createRun, waitForRun } = api(service)
const remove = (name: string) => request('DELETE', `/agents/${name}`)
afterAll(async () => {
  await service.kill()
  await sql.end()
})

const agent = (name: string, more: Record<string, unknown> = {}) => ({
  name,
  models: ['openai:gpt-5.2'],
  ...more,
})
const auditsOf = async (target: string) => [
  ...(await sql`select actor, role, action, outcome, code, run_id, request_id
    from runlane.audit_events where target = ${target} order by id`),
]

test('a declaration of a later version is a problem of its own, and hurts no other agent', async () => {
  await post('/agents', agent('later'))
  await sql`update runlane.agents set definition = definition || '{"of_tomorrow": 1}' where name = 'later'`
  const { status, body } = await get('/agents')

  expect(status).toBe(200)
  expect(body.problems).toEqual([{ name: 'later', message: expect.stringMatching(/of_tomorrow/) }])
  expect(body.agents.map(({ name }: { name: string }) => name)).not.toContain('later')
  expectProblem(await get('/agents/later'), { status: 404, code: 'not_found' })
  const refused = await post('/runs', { agent: 'later', input: { message: 'hi' } })
  expectProblem(refused, { status: 422, code: 'unknown_agent' })
  expect(refused.body.detail).toMatch(/cannot read its declaration.*of_tomorrow/s)
  expect((await remove('later')).status).toBe(204)
})

describe('GET /agents', () => {
  test('lists built-in and declared agents by name, each once', async () => {
    await post('/agents', agent('zebra'))
    await post('/agents', agent('ant'))
    const { status, body } = await get('/agents')

    expect(status).toBe(200)
    expect(body).toMatchObject({ problems: [], next_cursor: null })
    const names = body.agents.map(({ name }: { name: string }) => name)
    expect(names).toEqual(['ant', 'scripted', 'zebra'])
    expect(body.agents[1]).toMatchObject({ kind: 'built_in', models: [], model: null })
    expect(body.agents[0]).toEqual({
      name: 'ant',
      kind: 'declared',
      description: null,
      models: ['openai:gpt-5.2'],
      current_tier: 1,
      model: 'openai:gpt-5.2',
      paused: false,
      last_failover_at: null,
      last_failure_kind: null,
      retry_at: null,
      active_runs: 0,
    })
  })

  test('counts the runs under way of each', async () => {
    const { run_id } = await createRun(scripted([{ tool: 't', hang: true, effects: 'none' }]))
    await waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_tool' })
    expect((await get('/agents/scripted')).body.active_runs).toBe(1)
    await post(`/runs/${run_id}/cancel?wait=5s`)
    await waitForRun(run_id)
    expect((await get('/agents/scripted')).body.active_runs).toBe(0)
  })

  test('of one that is not there is 404, and of one that cannot be 422', async () => {
    expectProblem(await get('/agents/none'), { status: 404, code: 'not_found' })
    expectProblem(await get(`/agents/${'a'.repeat(300)}`), {
      ...{ status: 422, code: 'validation_error' },
      paths: ['name'],
    })
    expectProblem(await get('/agents/assistant'), { status: 404, code: 'not_found' })
  })
})

test('the values of headers are stored to be sent and never shown', async () => {
  const headers = { authorization: 'Bearer s3cr3t', 'X-Key': 's3cr3t' }
  const search = {
    name: 'search',
    description: '',
    input_schema: { type: 'object' },
    url: 'https://example.com/search',
    headers,
  }
  const mcp = [{ url: 'https://example.com/mcp', headers: { 'X-Mcp': 's3cr3t' } }]
  const answers = [
    await post('/agents', agent('keys', { tools: [search], mcp })),
    await post('/agents', agent('keys', { tools: [search], mcp })),
    await get('/agents/keys'),
    await get('/agents'),
    await post('/agents', agent('keys', { tools: [{ ...search, url: 'x' }], mcp })),
    await post('/agents', agent('keys', { tools: [{ ...search, headers: { a: 's3cr3t\n' } }] })),
  ]

  expect(answers.map(({ status }) => status)).toEqual([201, 200, 200, 200, 422, 422])
  expect(JSON.stringify(answers.map(({ body }) => body))).not.toContain('s3cr3t')
  expect(answers[2]?.body.definition).toMatchObject({
    tools: [{ headers: { authorization: '•••', 'X-Key': '•••' } }],
    mcp: [{ headers: { 'X-Mcp': '•••' } }],
  })
  const [row] = await sql`select definition from runlane.agents where name = 'keys'`
  expect(row?.['definition'].tools[0].headers).toEqual(headers)
  const audit = await sql`select a::text as text from runlane.audit_events a`
  expect(JSON.stringify([...audit])).not.toContain('s3cr3t')
  expect(service.stdout() + service.stderr()).not.toContain('s3cr3t')
})

describe('DELETE /agents', () => {
  test('forgets a declared agent: 204, then 404, and runs cannot name it', async () => {
    await post('/agents', agent('gone'))
    const run = { agent: 'gone', input: { message: 'hello' } }
    expect(await remove('gone')).toMatchObject({ status: 204, body: null })

    expectProblem(await remove('gone'), { status: 404, code: 'not_found' })
    expectProblem(await get('/agents/gone'), { status: 404, code: 'not_found' })
    const refused = await post('/runs', run)
    expectProblem(refused, { status: 422, code: 'unknown_agent', paths: ['agent'] })
    expect(refused.body.detail).toContain('there is no agent gone')
    expect((await post('/agents', agent('gone'))).status).toBe(201)
  })

  test('of a built-in agent is a conflict', async () => {
    expectProblem(await remove('scripted'), { status: 409, code: 'agent_exists' })
    expect((await get('/agents/scripted')).status).toBe(200)
  })

  test('by two at the same time succeeds once', async () => {
    await post('/agents', agent('twice'))
    const answers = await Promise.all([remove('twice'), remove('twice')])
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([204, 404]))
    const audits = await auditsOf('twice')
    // The two last ones are written at the same time.
    expect(audits.map(({ action, outcome }) => `${action} ${outcome}`).toSorted()).toEqual([
      'agent.declare applied',
      'agent.delete applied',
      'agent.delete refused',
    ])
  })
})

test('each declaration and deletion leaves an audit row that names caller and request', async () => {
  const first = await post('/agents', agent('audited'))
  await post('/agents', agent('audited'))
  await remove('audited')
  expectProblem(await remove('scripted'), { status: 409, code: 'agent_exists' })

  const row = {
    actor: expect.stringMatching(/\S/),
    role: 'admin',
    outcome: 'applied',
    code: null,
    run_id: null,
    request_id: expect.stringMatching(/\S/),
  }
  const rows = await auditsOf('audited')
  expect(rows).toEqual([
    { ...row, action: 'agent.declare' },
    { ...row, action: 'agent.declare' },
    { ...row, action: 'agent.delete' },
  ])
  expect(rows[0]?.['request_id']).toBe(first.headers.get('x-request-id'))
  expect((await auditsOf('scripted')).at(-1)).toEqual({
    ...row,
    action: 'agent.delete',
    outcome: 'refused',
    code: 'agent_exists',
  })
})

test.each([
  ['GET', '/agents'],
  ['GET', '/agents/scripted'],
  ['POST', '/agents'],
  ['DELETE', '/agents/ant'],
])('%s %s without a token is 401 and does nothing', async (method, path) => {
  const anonymous = api({ url: service.url })
  const body = method === 'POST' ? { body: agent('intruder') } : {}
  expectProblem(await anonymous.request(method, path, body), { status: 401, code: 'unauthorized' })
  expect((await get('/agents/intruder')).status).toBe(404)
  expect((await get('/agents/ant')).status).toBe(200)
})

test('a thousand and first declared agent is refused, replacing one of the thousand is not', async () => {
  await sql`insert into runlane.agents (name, definition, declared_by, created_at, updated_at)
    select 'filler-' || n, jsonb_build_object('name', 'filler-' || n, 'models', '["openai:a"]'::jsonb), 'test',
      runlane.now(), runlane.now()
    from generate_series(1, 1000 - (select count(*)::int from runlane.agents)) as n`

  expectProblem(await post('/agents', agent('one-more')), { status: 409, code: 'too_many_agents' })
  expect((await get('/agents/one-more')).status).toBe(404)
  expect(await auditsOf('one-more')).toMatchObject([
    { action: 'agent.declare', outcome: 'refused', code: 'too_many_agents' },
  ])
  expect((await post('/agents', agent('filler-1', { max_turns: 2 }))).status).toBe(200)
  expect((await get('/agents')).body.agents).toHaveLength(1_001)
  expect((await remove('filler-2')).status).toBe(204)
  expect((await post('/agents', agent('one-more'))).status).toBe(201)
})
