import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { assistantCard } from '../../src/agents/assistant.ts'
import { expectProblem } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startModelServer } from '../support/model-server.ts'
import { startService } from '../support/service.ts'
import { startOddServer } from './declared-setup.ts'

const databaseUrl = await freshDatabase()

/** A service with these settings of providers and no others, killed after the test. */
const serviceWith = async (env: Record<string, string>) => {
  const service = await startService({ env, databaseUrl })
  onTestFinished(async () => void (await service.kill()))
  return api(service)
}

const modelServer = async () => {
  const model = await startModelServer()
  onTestFinished(() => model.close())
  return model
}

describe('with OPENAI_BASE_URL alone', async () => {
  const model = await startModelServer()
  const service = await startService({ databaseUrl, env: { OPENAI_BASE_URL: model.url } })
  const { createRun, waitForRun, get, post } = api(service)
  afterAll(async () => {
    await service.kill()
    await model.close()
  })

  test('assistant answers at once, without a key', async () => {
    model.script('hello', [{ text: 'Hi there.' }])

    expect((await get('/agents/assistant')).body).toMatchObject({
      name: 'assistant',
      kind: 'built_in',
      models: ['openai:gpt-5.2'],
      takes: 'messages',
      tools: [],
    })
    const { run_id } = await createRun({ agent: 'assistant', input: { message: 'hello' } })
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'completed',
      output: { text: 'Hi there.' },
      model: 'openai:gpt-5.2',
      usage: { input_tokens: 10, output_tokens: 5 },
    })
    const [request] = model.requestsOf('hello')
    expect(request?.body.model).toBe('gpt-5.2')
    expect(request?.body.messages).toEqual([
      expect.objectContaining({ role: 'system', content: expect.stringMatching(/assistant/) }),
      expect.objectContaining({ role: 'user', content: 'hello' }),
    ])
  })

  test('it takes a whole conversation', async () => {
    model.script('first', [{ text: 'never asked' }, { text: 'The answer.' }])
    const messages = [
      { role: 'user', content: 'first' },
      { role: 'assistant', content: 'Yes?' },
      { role: 'user', content: 'second' },
    ]

    const { run_id } = await createRun({ agent: 'assistant', input: { messages } })
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'completed',
      output: { text: 'The answer.' },
    })
    const requests = model.requestsOf('first')
    expect(requests).toHaveLength(1)
    expect(requests[0]?.body.messages.slice(1)).toMatchObject(messages)
  })

  test('an input that is no message is refused when it is posted, each field named', async () => {
    const hello = { role: 'user', content: 'hello' }
    const count = async () => (await get('/runs')).body.runs.length
    const before = await count()
    const wrong: [unknown, string[]][] = [
      [undefined, ['input']],
      [{}, ['input']],
      ['hello', ['input']],
      [null, ['input']],
      [[hello], ['input']],
      [{ message: '' }, ['input.message']],
      [{ message: 7 }, ['input.message']],
      [{ message: 'hello', messages: [hello] }, ['input']],
      [{ message: 'hello', mesage: 'x' }, ['input.mesage']],
      [{ messages: [] }, ['input.messages']],
      [{ messages: 'hello' }, ['input.messages']],
      [{ messages: Array.from({ length: 1_001 }, () => hello) }, ['input.messages']],
      [{ messages: [hello, 'x', null] }, ['input.messages[1]', 'input.messages[2]']],
      [{ messages: [{ role: 'tool', content: 'x' }] }, ['input.messages[0].role']],
      [{ messages: [{ role: 'user' }] }, ['input.messages[0].content']],
      [{ messages: [{ ...hello, name: 'a' }] }, ['input.messages[0].name']],
    ]
    for (const [input, paths] of wrong)
      expectProblem(await post('/runs', { agent: 'assistant', input }), {
        status: 422,
        code: 'validation_error',
        paths,
      })
    expect(await count()).toBe(before)
  })
})

test('OPENAI_API_KEY is sent to a base URL where there is one, OPENAI_MODEL is asked for', async () => {
  const refusing = await startOddServer({
    '/v1/chat/completions': (response) =>
      response.writeHead(401).end('{"error":{"message":"who are you?"}}'),
  })
  const ask = async (env: Record<string, string>) => {
    const { createRun, waitForRun } = await serviceWith({
      OPENAI_BASE_URL: `${refusing.url}/v1`,
      ...env,
    })
    const { run_id } = await createRun({ agent: 'assistant', input: { message: 'hello' } })
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'failed',
      error_code: 'auth_error',
      error_message: expect.stringContaining('401'),
    })
    return refusing.calls.at(-1)?.headers.authorization
  }

  expect(await ask({})).toBeUndefined()
  expect(await ask({ OPENAI_API_KEY: 'sk-test', OPENAI_MODEL: 'small:7b' })).toBe('Bearer sk-test')
  expect(refusing.calls.at(-1)?.body).toContain('"model":"small:7b"')
})

test('with ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL assistant answers too', async () => {
  const model = await modelServer()
  model.script('hello', [{ text: 'Hi from Claude.' }])
  const { createRun, waitForRun, get } = await serviceWith({
    // As docker-compose.yml passes on what nobody set.
    OPENAI_API_KEY: '',
    OPENAI_BASE_URL: '',
    ANTHROPIC_API_KEY: 'key',
    ANTHROPIC_BASE_URL: model.url,
  })

  expect((await get('/agents/assistant')).body.models).toEqual(['anthropic:claude-opus-4-7'])
  const { run_id } = await createRun({ agent: 'assistant', input: { message: 'hello' } })
  expect(await waitForRun(run_id)).toMatchObject({
    status: 'completed',
    output: { text: 'Hi from Claude.' },
    model: 'anthropic:claude-opus-4-7',
  })
})

test('with OPENAI_API_KEY alone assistant is listed', async () => {
  const { get } = await serviceWith({ OPENAI_API_KEY: 'sk-test' })
  expect((await get('/agents')).body.agents).toMatchObject([
    { name: 'assistant', kind: 'built_in', model: 'openai:gpt-5.2' },
    { name: 'scripted' },
  ])
})

test('with empty settings the service starts without assistant, and who asks for it is told why', async () => {
  const { get, post } = await serviceWith({
    OPENAI_API_KEY: '',
    OPENAI_BASE_URL: '',
    ANTHROPIC_API_KEY: '',
    ANTHROPIC_BASE_URL: '',
  })

  expect((await get('/agents')).body.agents).toMatchObject([{ name: 'scripted' }])
  const refused = await post('/runs', { agent: 'assistant', input: { message: 'hello' } })
  expectProblem(refused, { status: 422, code: 'unknown_agent', paths: ['agent'] })
  for (const name of ['OPENAI_API_KEY', 'OPENAI_BASE_URL', 'ANTHROPIC_API_KEY'])
    expect(refused.body.detail).toContain(name)
})

test.each<[string, Record<string, string>, string[] | undefined]>([
  ['nothing', {}, undefined],
  ['models and no provider', { OPENAI_MODEL: 'a', ANTHROPIC_MODEL: 'b' }, undefined],
  ['a base URL of Anthropic and no key', { ANTHROPIC_BASE_URL: 'http://x' }, undefined],
  ['a key of OpenAI', { OPENAI_API_KEY: 'k' }, ['openai:gpt-5.2']],
  [
    'keys of both',
    { ANTHROPIC_API_KEY: 'k', OPENAI_API_KEY: 'k' },
    ['openai:gpt-5.2', 'anthropic:claude-opus-4-7'],
  ],
  ['a model of one', { ANTHROPIC_API_KEY: 'k', ANTHROPIC_MODEL: 'b' }, ['anthropic:b']],
  ['an empty model', { OPENAI_API_KEY: 'k', OPENAI_MODEL: '' }, ['openai:gpt-5.2']],
])('of %s set, its models are made', (_what, env, models) => {
  expect(assistantCard(env)?.models).toEqual(models)
})
