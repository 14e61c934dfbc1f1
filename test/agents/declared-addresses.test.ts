import { afterAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { expectProblem, serve } from '../http/setup.ts'
import { type Api, api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startModelServer } from '../support/model-server.ts'
import { fakeResolver } from '../support/resolver.ts'
import { startService } from '../support/service.ts'
import { declaration, startOddServer, toldOf } from './declared-setup.ts'

const { nodeArgs, setNames } = fakeResolver()

const inside = await startOddServer({
  '/tool': (response) => response.setHeader('connection', 'close').end('{"secret":1}'),
  '/moved': (response) =>
    response.writeHead(302, { location: 'http://127.0.0.1:1/', connection: 'close' }).end(),
})
const port = new URL(inside.url).port
const model = await startModelServer()
const databaseUrl = await freshDatabase()
// 127.0.0.1 is the model's, whom no list has to name; what agents may reach is set apart from where we listen.
const env = { OPENAI_BASE_URL: model.url, HOST: '127.0.0.1' }
const [strict, lenient] = await Promise.all([
  serve('postgres', { nodeArgs, env: { ...env, RUNLANE_WEBHOOK_ALLOW: 'only.test' } }),
  serve('postgres', { nodeArgs, env: { ...env, RUNLANE_WEBHOOK_ALLOW: 'named.test,127.0.0.1' } }),
])
afterAll(() => model.close())
beforeEach(() => {
  inside.calls.length = 0
})

type Where = Api

/** Declares the agent, runs it once and answers what its model was told of the tool. */
const told = async (where: Where, name: string, url: string): Promise<string | undefined> => {
  expect((await where.post('/agents', declaration(name, url))).status).toBe(201)
  return toldAgain(where, name)
}

let asked = 0
const toldAgain = async (where: Where, name: string): Promise<string | undefined> => {
  asked += 1
  const key = `${name} ${asked}`
  model.script(key, [{ calls: [{ name: 'act', input: {} }] }, { text: 'done' }])
  const { run_id } = await where.createRun({ agent: name, input: { message: key } })
  expect(await where.waitForRun(run_id)).toMatchObject({ status: 'completed' })
  return toldOf(model, key)[0]
}

describe('a declared agent cannot be posted with an address inside', () => {
  test.each([
    'http://127.0.0.1/',
    'http://localhost/',
    'http://2130706433/',
    'http://0x7f.1/',
    'http://0177.0.0.1/',
    'http://0.0.0.0/',
    'http://10.0.0.1/',
    'http://100.64.0.1/',
    'http://169.254.169.254/latest/meta-data/',
    'http://[::1]/',
    'http://[::ffff:127.0.0.1]/',
    'http://[fd00::1]/',
    'http://[fe80::1]/',
  ])('%s, neither for a tool nor for an MCP server', async (url) => {
    const body = declaration('inside', url, {}, { mcp: [{ url: 'https://example.com' }, { url }] })
    const response = await strict.post('/agents', body)

    expectProblem(response, {
      status: 422,
      code: 'validation_error',
      paths: ['tools[0].url', 'mcp[1].url'],
    })
    for (const { message } of response.body.errors) {
      expect(message).toContain('is a private address')
      expect(message).toContain('RUNLANE_WEBHOOK_ALLOW')
    }
  })
})

describe('a tool', () => {
  test.each(['127.0.0.1', '10.0.0.1', '169.254.169.254', '::1', '::ffff:127.0.0.1', 'fe80::1%lo'])(
    'whose name resolves to %s is not called, and its model is told',
    async (address) => {
      setNames({ 'inside.test': [address] })
      const name = `resolves-${address.replaceAll(/\W/g, '-')}`
      expect(await told(strict, name, `http://inside.test:${port}/tool`)).toContain(
        'inside.test resolves to a private address',
      )
      expect(inside.calls).toEqual([])
    },
  )

  test('whose name resolves to another address later is checked again', async () => {
    // 127.0.0.1 is allowed here and stands for an address in the public.
    setNames({ 'rebinding.test': ['127.0.0.1'] })
    const url = `http://rebinding.test:${port}/tool`
    expect(await told(lenient, 'rebinding', url)).toBe('{"secret":1}')
    expect(inside.calls).toHaveLength(1)

    setNames({ 'rebinding.test': ['127.0.0.2'] })
    expect(await toldAgain(lenient, 'rebinding')).toContain('resolves to a private address')
    expect(inside.calls).toHaveLength(1)
  })

  test('is called when the list has the name, wherever that is, and no other', async () => {
    setNames({ 'only.test': ['127.0.0.1'], 'other.test': ['127.0.0.1'] })
    expect(await told(strict, 'only', `http://only.test:${port}/tool`)).toBe('{"secret":1}')
    expect(await told(strict, 'other', `http://other.test:${port}/tool`)).toContain(
      'resolves to a private address',
    )
    expect(inside.calls).toHaveLength(1)
  })

  test('that answers with a redirect to the inside has failed', async () => {
    setNames({ 'only.test': ['127.0.0.1'] })
    expect(await told(strict, 'moved', `http://only.test:${port}/moved`)).toMatch(/answered 302$/)
    expect(inside.calls).toHaveLength(1)
  })

  test('of a name that does not exist has failed', async () => {
    setNames({})
    expect(await told(strict, 'nowhere', 'http://nowhere.test/')).toContain(
      'ENOTFOUND nowhere.test',
    )
  })

  test('that was declared while its address was allowed is refused after a restart without that', async () => {
    const settings = { ...env, RUNLANE_WEBHOOK_ALLOW: '127.0.0.1' }
    const before = await startService({ databaseUrl, nodeArgs, env: settings })
    onTestFinished(async () => void (await before.kill()))
    expect(await told(api(before), 'formerly', `${inside.url}/tool`)).toBe('{"secret":1}')
    const after = await before.restart({ env: { RUNLANE_WEBHOOK_ALLOW: 'only.test' } })
    onTestFinished(async () => void (await after.kill()))

    expect(await toldAgain(api(after), 'formerly')).toContain('is a private address (127.0.0.1)')
    expect(inside.calls).toHaveLength(1)
  })
})

describe('an MCP server of a declared agent', () => {
  const failure = async (where: Where, name: string, url: string) => {
    const body = { ...declaration(name, 'https://example.com/'), mcp: [{ url }] }
    expect((await where.post('/agents', body)).status).toBe(201)
    const { run_id } = await where.createRun({ agent: name, input: { message: name } })
    return where.waitForRun(run_id)
  }

  test('whose name resolves to the inside is not called: the run fails and says why', async () => {
    setNames({ 'mcp.test': ['127.0.0.1'] })
    expect(await failure(strict, 'mcp-inside', `http://mcp.test:${port}/mcp`)).toMatchObject({
      status: 'failed',
      error_code: 'mcp_unavailable',
      error_message: expect.stringContaining('mcp.test resolves to a private address'),
    })
    expect(inside.calls).toEqual([])
  })

  test('that redirects to the inside is not followed', async () => {
    setNames({ 'only.test': ['127.0.0.1'] })
    const run = await failure(strict, 'mcp-moved', `http://only.test:${port}/moved`)
    expect(run).toMatchObject({ status: 'failed', error_code: 'mcp_unavailable' })
    expect(run.error_message).toContain('redirect')
  })

  test('cannot be a command', async () => {
    const body = { ...declaration('commands', 'https://example.com/'), mcp: [{ command: 'sh' }] }
    expectProblem(await lenient.post('/agents', body), {
      status: 422,
      code: 'validation_error',
      paths: ['mcp[0].url', 'mcp[0].command'],
    })
  })
})
