import { mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem } from './setup.ts'

const databaseUrl = await freshDatabase()
const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
const folder = mkdtempSync(join(tmpdir(), 'runlane-agents-'))
writeFileSync(
  join(folder, 'coded.ts'),
  "import { defineAgent } from 'runlane'\nexport default defineAgent({ name: 'coded', run: async () => 1 })\n",
)
// Without a provider: `assistant` is not there, and nothing here calls a model.
const service = await startService({ databaseUrl, env: { RUNLANE_AGENTS: folder } })
const { get, post } = api(service)
afterAll(async () => {
  await service.kill()
  await sql.end()
  await rm(folder, { recursive: true, force: true })
})

const auditsOf = (target: string) =>
  sql`select actor, role, action, outcome, code, run_id, request_id is not null as requested
    from runlane.audit_events where target = ${target} order by id`

const tool = (more: Record<string, unknown> = {}) => ({
  name: 'search',
  description: 'Searches.',
  input_schema: { type: 'object' },
  url: 'https://example.com/search',
  ...more,
})
const agent = (name: string, more: Record<string, unknown> = {}) => ({
  name,
  models: ['openai:gpt-5.2'],
  ...more,
})

describe('POST /agents', () => {
  test('declares an agent: 201, where it is, and all that was said or left to defaults', async () => {
    const { status, headers, body } = await post('/agents', {
      name: 'full',
      description: 'Does all.',
      instructions: 'Do all.',
      models: ['openai:gpt-5.2', 'local:qwen3'],
      tools: [tool({ timeout: '30s', effects: 'idempotent', needs_approval: false })],
      mcp: [{ url: 'https://example.com/mcp' }],
      delegates: ['writer'],
      timeouts: { turn: '5m' },
      max_turns: 7,
      budget: {},
    })

    expect(status).toBe(201)
    expect(headers.get('location')).toBe('/agents/full')
    expect(body).toMatchObject({
      name: 'full',
      kind: 'declared',
      description: 'Does all.',
      models: ['openai:gpt-5.2', 'local:qwen3'],
      model: 'openai:gpt-5.2',
      current_tier: 1,
      paused: false,
      active_runs: 0,
      tools: [
        { name: 'search', description: 'Searches.', effects: 'idempotent', timeout_ms: 30_000 },
      ],
      mcp: ['https://example.com/mcp'],
      delegates: ['writer'],
      timeouts: { turn: '5m' },
      takes: 'messages',
      definition: { instructions: 'Do all.', max_turns: 7 },
    })
    expect((await get('/agents/full')).body).toEqual(body)

    const bare = await post('/agents', agent('bare', { tools: [tool()] }))
    expect(bare.body).toMatchObject({
      tools: [{ effects: 'unsafe', timeout_ms: 60_000 }],
      mcp: [],
      definition: { instructions: '', max_turns: 100 },
    })
  })

  test('of the same name again replaces it: 200', async () => {
    expect((await post('/agents', agent('again', { max_turns: 1 }))).status).toBe(201)
    const second = await post('/agents', agent('again', { description: 'New.' }))

    expect(second.status).toBe(200)
    expect(second.body).toMatchObject({ description: 'New.', definition: { max_turns: 100 } })
    expect((await get('/agents/again')).body).toEqual(second.body)
  })

  test('of one name by many at the same time makes one agent', async () => {
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, nth) =>
        post('/agents', agent('raced', { max_turns: nth + 1 })),
      ),
    )
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(7)
    expect(await auditsOf('raced')).toHaveLength(8)
  })

  test.each(['scripted', 'assistant', 'coded'])(
    'of the name %s, which is taken, is a conflict, and audited',
    async (name) => {
      expectProblem(await post('/agents', agent(name)), { status: 409, code: 'agent_exists' })
      expect(await auditsOf(name)).toEqual([
        expect.objectContaining({
          action: 'agent.declare',
          outcome: 'refused',
          code: 'agent_exists',
        }),
      ])
      expect(await sql`select 1 from runlane.agents where name = ${name}`).toEqual([])
    },
  )

  const manyTools = Array.from({ length: 129 }, (_, nth) => tool({ name: `t${nth}` }))
  const large = { type: 'object', description: 'x'.repeat(100_000) }
  test.each<[string, unknown, string[]]>([
    ['nothing', {}, ['name', 'models']],
    ['a name with a slash', agent('a/b'), ['name']],
    ['an empty name', agent(''), ['name']],
    ['a name of scripted agents', agent('scripted:a'), ['name']],
    ['a name that begins with a dot', agent('.a'), ['name']],
    ['a name of 101 characters', agent('a'.repeat(101)), ['name']],
    ['no models', agent('a', { models: [] }), ['models']],
    ['11 models', agent('a', { models: Array(11).fill('openai:a') }), ['models']],
    [
      'models that are no provider:model',
      agent('a', { models: ['gpt-5.2', 'openai:', 'OpenAI:a', 'openai:a b', 7] }),
      [0, 1, 2, 3, 4].map((nth) => `models[${nth}]`),
    ],
    ['an unknown field', agent('a', { modles: [] }), ['modles']],
    ['129 tools', agent('a', { tools: manyTools }), ['tools']],
    [
      '17 MCP servers',
      agent('a', { mcp: Array.from({ length: 17 }, () => ({ url: 'https://example.com' })) }),
      ['mcp'],
    ],
    ['max_turns of 0', agent('a', { max_turns: 0 }), ['max_turns']],
    ['a time that is none', agent('a', { timeouts: { turn: 'soon' } }), ['timeouts.turn']],
    ['a budget', agent('a', { budget: { tokens: 1 } }), ['budget.tokens']],
    ['code', agent('a', { run: 'async () => 1' }), ['run']],
    [
      'MCP servers that are commands',
      agent('a', { mcp: [{ command: 'sh' }, { url: 'https://example.com', command: 'sh' }] }),
      ['mcp[0].url', 'mcp[0].command', 'mcp[1].command'],
    ],
    ['text that cannot be stored', agent('a', { instructions: 'a\0b' }), ['instructions']],
  ])('with %s is refused, each field named', async (_what, body, paths) => {
    expectProblem(await post('/agents', body), { status: 422, code: 'validation_error', paths })
  })

  test.each<[string, Record<string, unknown>, string[]]>([
    ['a bad name', { name: 'a b' }, ['name']],
    ['a name of 65 characters', { name: 'a'.repeat(65) }, ['name']],
    ["a name of the loop's own", { name: 'update_journal' }, ['name']],
    ['no description', { description: undefined }, ['description']],
    ['an array as schema', { input_schema: [] }, ['input_schema']],
    ['a schema that is not of objects', { input_schema: { type: 'string' } }, ['input_schema']],
    [
      'a schema that is none',
      { input_schema: { type: 'object', properties: { a: { type: 'text' } } } },
      ['input_schema'],
    ],
    [
      'a schema that refers to the outside',
      {
        input_schema: { type: 'object', properties: { a: { $ref: 'https://example.com/a.json' } } },
      },
      ['input_schema'],
    ],
    [
      'an asynchronous schema',
      { input_schema: { type: 'object', $async: true } },
      ['input_schema'],
    ],
    ['a schema that is too large', { input_schema: large }, ['input_schema']],
    ['a URL that is none', { url: 'search' }, ['url']],
    ['a URL of another kind', { url: 'file:///etc/passwd' }, ['url']],
    ['a URL with credentials', { url: 'https://a:b@example.com/' }, ['url']],
    ['unknown effects', { effects: 'some' }, ['effects']],
    ['a timeout without unit', { timeout: '30' }, ['timeout']],
    ['an approval, which nobody would be asked for', { needs_approval: true }, ['needs_approval']],
    ['another method', { method: 'GET' }, ['method']],
    ['a header that is none', { headers: { 'a b': 'c' } }, ['headers.a b']],
    ['a header of two lines', { headers: { a: 'b\r\nc: d' } }, ['headers.a']],
    ['a header that is no text', { headers: { a: 1 } }, ['headers.a']],
    ["the call's own key", { headers: { 'Idempotency-Key': 'mine' } }, ['headers']],
    ['a header of the connection', { headers: { upgrade: 'h2c' } }, ['headers']],
  ])('with a tool that has %s is refused, each field named', async (_what, wrong, fields) => {
    const body = agent('a', { tools: [tool({ name: 'first' }), tool(wrong)] })
    expectProblem(await post('/agents', body), {
      status: 422,
      code: 'validation_error',
      paths: fields.map((field) => `tools[1].${field}`),
    })
  })

  test('names every tool that has the name of an earlier one', async () => {
    const tools = [tool(), tool({ name: 'b' }), tool(), tool({ name: 'b' })]
    expectProblem(await post('/agents', agent('a', { tools })), {
      status: 422,
      code: 'validation_error',
      paths: ['tools[2].name', 'tools[3].name'],
    })
  })

  test('tells the nearest field to an unknown one, also inside a tool', async () => {
    const { body } = await post('/agents', agent('a', { tools: [tool({ efects: 'none' })] }))
    expect(body.errors).toEqual([
      { path: 'tools[0].efects', message: 'is an unknown field, did you mean "effects"?' },
    ])
  })

  test('that was refused leaves nothing', async () => {
    expectProblem(await get('/agents/a'), { status: 404, code: 'not_found' })
    expect(await auditsOf('a')).toEqual([])
  })
})
