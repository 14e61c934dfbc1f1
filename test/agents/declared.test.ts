import { describe, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { declaration, serveDeclared, startOddServer, toldOf } from './declared-setup.ts'

const { model, effects, post, get, createRun, waitForRun, events, cancel } = await serveDeclared()
const MEGABYTE = 'x'.repeat(1_000_000)
const odd = await startOddServer({
  '/echo': (response) => response.end('{"said":"hello"}'),
  '/scalar': (response) => response.end('"plain"'),
  '/created': (response) => response.writeHead(201).end('{"id":7}'),
  '/no-content': (response) => response.writeHead(204).end(),
  '/missing': (response) => response.writeHead(404).end('{"error":"none"}'),
  '/broken': (response) => response.writeHead(500).end('<h1>oops</h1>'),
  '/broken-and-large': (response) => response.writeHead(502).end(MEGABYTE.repeat(3)),
  '/moved': (response) => response.writeHead(307, { location: '/echo' }).end(),
  '/not-modified': (response) => response.writeHead(304).end(),
  '/html': (response) => response.end('<h1>hello</h1>'),
  '/nul': (response) => response.end('{"a":"\\u0000"}'),
  '/large': (response) => response.end(JSON.stringify(MEGABYTE)),
  '/huge': (response) => response.end(JSON.stringify(MEGABYTE.repeat(2))),
  '/silent': () => {},
  '/reset': (response) => void response.socket?.resetAndDestroy(),
  '/half': (response) => {
    response.writeHead(200, { 'content-length': '100' }).write('{"half":')
    response.socket?.destroySoon()
  },
})

/** Declares an agent whose model calls `act` with these inputs, then says `done`; answers the run at its end. */
const runOf = async (
  name: string,
  url: string,
  tool: Record<string, unknown> = {},
  inputs: unknown[] = [{}],
) => {
  expect((await post('/agents', declaration(name, url, tool))).status).toBe(201)
  model.script(name, [
    { calls: inputs.map((input) => ({ name: 'act', input })) },
    { text: `${name} is done` },
  ])
  return createRun({ agent: name, input: { message: name } })
}

describe('a declared agent', () => {
  test('runs whole: model, tool over HTTP, model, answer', async () => {
    const { run_id } = await runOf('whole', `${effects.url}/whole`, { effects: 'unsafe' }, [
      { city: 'Oslo', reply: { degrees: 4 } },
    ])
    const run = await waitForRun(run_id)

    expect(run).toMatchObject({
      status: 'completed',
      agent: 'whole',
      output: { text: 'whole is done' },
      model: 'openai:test-model',
      usage: { input_tokens: 20, output_tokens: 10 },
    })
    const [call, ...others] = effects.calls.filter(({ path }) => path === '/whole')
    expect(others).toEqual([])
    expect(call?.body).toEqual({ city: 'Oslo', reply: { degrees: 4 } })
    const [first, second] = model.requestsOf('whole')
    expect(first?.body.messages[0]).toMatchObject({ role: 'system', content: 'You are whole.' })
    expect(first?.body.tools?.map((tool) => tool.function.name)).toContain('act')
    expect(second?.turn).toBe(1)
    expect(toldOf(model, 'whole')).toEqual(['{"degrees":4}'])
    const told = (await events(run_id, { visibility: 'operator' })).map((one) => one.event_type)
    expect(told).toEqual(expect.arrayContaining(['tool_started', 'tool_finished', 'message']))
  })

  test('shows its model the description and the schema of a tool as they were declared', async () => {
    const input_schema = {
      type: 'object',
      properties: { q: { type: 'string', description: 'what to look for' } },
      required: ['q'],
    }
    const described = { input_schema, description: 'Looks things up.' }
    const { run_id } = await runOf('described', `${odd.url}/echo`, described, [{ q: 'a' }])
    await waitForRun(run_id)

    const tools = model.requestsOf('described', 0)[0]?.body.tools
    const shown = tools?.find((tool) => tool.function.name === 'act')
    expect(shown?.function).toMatchObject({
      description: 'Looks things up.',
      parameters: input_schema,
    })
  })

  test('calls several tools beside each other, each with a key of its own', async () => {
    const inputs = ['a', 'b', 'c'].map((id) => ({ id, delay_ms: 100, lane: 'several' }))
    const { run_id } = await runOf('several', `${effects.url}/several`, {}, inputs)
    expect(await waitForRun(run_id)).toMatchObject({ status: 'completed' })

    const calls = effects.calls.filter(({ path }) => path === '/several')
    expect(calls.map(({ body }) => (body as { id: string }).id).toSorted()).toEqual(['a', 'b', 'c'])
    expect(new Set(calls.map(({ idempotencyKey }) => idempotencyKey)).size).toBe(3)
    expect(effects.overlaps().length).toBeGreaterThan(0)
  })

  test('sends JSON by POST, with the declared headers and an Idempotency-Key that names the call', async () => {
    const headers = { authorization: 'Bearer s3cr3t', 'X-Team': 'ops' }
    const { run_id } = await runOf('heads', `${odd.url}/echo?to=heads`, { headers }, [{ a: 'ø' }])
    await waitForRun(run_id)

    const [call] = odd.calls.filter(({ path }) => path === '/echo?to=heads')
    expect(call).toMatchObject({
      method: 'POST',
      body: '{"a":"ø"}',
      headers: {
        'content-type': 'application/json',
        authorization: 'Bearer s3cr3t',
        'x-team': 'ops',
        'idempotency-key': expect.stringContaining(run_id),
      },
    })
    const { body } = await get(`/runs/${run_id}/tool-results`)
    const result = body.tool_results.find((one: { tool: string }) => one.tool === 'act')
    expect(result).toMatchObject({ outcome: 'succeeded', effects: 'none' })
    expect(call?.headers['idempotency-key']).toContain(result.tool_call_id)
    const all = JSON.stringify([await events(run_id), body, await waitForRun(run_id)])
    expect(all).not.toContain('s3cr3t')
  })

  test('is told what does not fit its schema, and nothing is called', async () => {
    const input_schema = {
      type: 'object',
      properties: { n: { type: 'integer', minimum: 1 } },
      required: ['n'],
      additionalProperties: false,
    }
    const wrong = [{}, { n: 'one' }, { n: 0 }, { n: 1, m: 2 }]
    const { run_id } = await runOf('strict', `${effects.url}/strict`, { input_schema }, [
      ...wrong,
      { n: 1 },
    ])
    expect(await waitForRun(run_id)).toMatchObject({ status: 'completed' })

    expect(toldOf(model, 'strict')).toEqual([
      expect.stringContaining("invalid input: it must have required property 'n'"),
      expect.stringContaining('invalid input: n must be integer'),
      expect.stringContaining('invalid input: n must be >= 1'),
      expect.stringContaining('invalid input: it must NOT have additional properties'),
      expect.stringContaining('"ok":true'),
    ])
    const calls = effects.calls.filter(({ path }) => path === '/strict')
    expect(calls.map(({ body }) => body)).toEqual([{ n: 1 }])
  })
})

describe('a tool answers', () => {
  test.each([
    ['an object', '/echo', '{"said":"hello"}'],
    ['a bare text', '/scalar', '"plain"'],
    ['201 with a body', '/created', '{"id":7}'],
    ['204 with nothing', '/no-content', 'null'],
  ])('%s: the model gets it', async (_what, path, told) => {
    const name = `ok${path.replace('/', '-')}`
    const { run_id } = await runOf(name, odd.url + path)

    expect(await waitForRun(run_id)).toMatchObject({
      status: 'completed',
      output: { text: `${name} is done` },
    })
    expect(toldOf(model, name)).toEqual([told])
  })

  test.each([
    ['404', '/missing', /answered 404: \{"error":"none"\}$/],
    ['500', '/broken', /answered 500: <h1>oops<\/h1>$/],
    ['502 with more than it may', '/broken-and-large', /answered 502$/],
    ['304', '/not-modified', /answered 304$/],
    ['a redirect, which is not followed', '/moved', /answered 307$/],
    ['something that is not JSON', '/html', /answered 200 with something that is not JSON$/],
    ['JSON that cannot be stored', '/nul', /its answer\.a contains a NUL character/],
    ['a little more than 1 MB', '/large', /1000000 bytes/],
    ['2 MB', '/huge', /larger than 2000000 bytes/],
    ['by cutting the connection', '/reset', /ECONNRESET|other side closed|socket hang up/],
    ['half of it', '/half', /other side closed|terminated|aborted/],
    ['nothing in time', '/silent', /timed out after 200ms/],
  ])('%s: the model is told and the run goes on', async (_what, path, message) => {
    const name = `bad${path.replace('/', '-')}`
    const { run_id } = await runOf(name, odd.url + path, { timeout: '200ms' })

    expect(await waitForRun(run_id)).toMatchObject({
      status: 'completed',
      output: { text: `${name} is done` },
    })
    expect(toldOf(model, name)).toEqual([expect.stringMatching(message)])
    const { body } = await get(`/runs/${run_id}/tool-results`)
    const results = body.tool_results.filter((one: { tool: string }) => one.tool === 'act')
    expect(results).toEqual([
      expect.objectContaining({
        outcome: 'failed',
        result: null,
        error_message: expect.stringMatching(message),
      }),
    ])
    // One call made it, whatever it answered: nothing is repeated behind the model's back.
    expect(odd.calls.filter((call) => call.path === path)).toHaveLength(1)
  })

  test('nobody at all: the model is told and the run goes on', async () => {
    const { run_id } = await runOf('nobody', 'http://127.0.0.1:2/')
    expect(await waitForRun(run_id)).toMatchObject({ status: 'completed' })
    expect(toldOf(model, 'nobody')).toEqual([expect.stringContaining('ECONNREFUSED')])
  })

  test('nothing in time: its request is ended, not only given up', async () => {
    const { run_id } = await runOf('ended', `${odd.url}/silent?ended`, { timeout: '200ms' })
    await waitForRun(run_id)
    const ended = () => odd.calls.find(({ path }) => path === '/silent?ended')?.aborted
    await eventually(() => ended() === true, { message: 'the end of the request' })
  })

  test('nothing in time to an unsafe call: the model is warned', async () => {
    const unsafe = { timeout: '200ms', effects: 'unsafe' }
    const { run_id } = await runOf('warned', `${odd.url}/silent?warned`, unsafe)
    await waitForRun(run_id)
    expect(toldOf(model, 'warned')).toEqual([
      'timed out after 200ms; what it did outside may still take effect',
    ])
  })
})

describe('a cancel while a tool is called', () => {
  test('ends the request of a tool without effects', async () => {
    const { run_id } = await runOf('cancelled', `${odd.url}/silent?cancelled`)
    const call = await eventually(() => odd.calls.find(({ path }) => path === '/silent?cancelled'))
    expect((await cancel(run_id)).status).toBe(202)

    expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
    await eventually(() => call.aborted, { message: 'the end of the request' })
    expect(model.requestsOf('cancelled', 1)).toEqual([])
  })

  test('lets the request of an unsafe tool end, and keeps its result', async () => {
    const unsafe = { effects: 'unsafe' }
    const input = { hang: true, reply: 'sent' }
    const { run_id } = await runOf('lasting', `${effects.url}/lasting`, unsafe, [input])
    const call = await eventually(() => effects.calls.find(({ path }) => path === '/lasting'))
    expect((await cancel(run_id)).status).toBe(202)
    await waitForRun(run_id, { until: ({ status }) => status === 'cancel_requested' })
    expect(call.at_end).toBeNull()
    effects.release()

    expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
    expect(call.completed).toBe(true)
    const { body } = await get(`/runs/${run_id}/tool-results`)
    const result = body.tool_results.find((one: { tool: string }) => one.tool === 'act')
    expect(result).toMatchObject({ outcome: 'succeeded', result: 'sent' })
    expect(model.requestsOf('lasting', 1)).toEqual([])
  })
})
