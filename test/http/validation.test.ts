import { request as httpRequest } from 'node:http'
import postgres from 'postgres'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import { freshDatabase } from '../support/fresh-database.ts'
import { api, type ApiResponse } from '../support/api.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const LIMIT_BYTES = 64 * 1024

const databaseUrl = await freshDatabase()
const service = await startService({ databaseUrl, env: { RUNLANE_BODY_LIMIT: '64kb' } })
afterAll(() => service.kill())
const { get, post } = api(service)

const runsWritten = async (): Promise<number> => (await get('/runs?limit=1000')).body.runs.length

let before = 0
beforeEach(async () => {
  before = await runsWritten()
})
afterEach(async () => {
  expect(await runsWritten()).toBe(before)
})

/** Raw bytes, so that a body need be neither JSON nor UTF-8 nor have a length. */
const postBytes = (
  path: string,
  chunks: readonly Buffer[],
  headers: Record<string, string> = {},
): Promise<ApiResponse> =>
  new Promise((resolve, reject) => {
    const request = httpRequest(`${service.url}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${service.token}`, ...headers },
    })
    let answered = false
    request.once('response', (response) => {
      answered = true
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
      response.once('end', () => {
        const status = response.statusCode ?? 0
        const type = response.headers['content-type'] ?? ''
        resolve({ status, headers: new Headers({ 'content-type': type }), body: JSON.parse(text) })
      })
      response.once('error', reject)
    })
    // The answer may come, and the connection end, before the whole body is sent.
    request.on('error', (error) => {
      if (!answered) reject(error)
    })
    for (const chunk of chunks) request.write(chunk)
    request.end()
  })

const long = 'x'.repeat(256)
const NUL = 'a\0b'
const LONE = 'a\ud800b'
const notText = [1, '', long, [], {}, true]

/** Field, values that do not fit. */
const wrong: [string, unknown[]][] = [
  ['agent', [undefined, null, ...notText]],
  ['conversation_id', notText],
  ['conversation_id', ['.', '..']],
  ['surface', ['mail', 1, null, '']],
  ['channel', notText],
  ['sender_key', notText],
  ['inbox_item_id', notText],
  ['task_run_id', notText],
  ['lane_key', notText],
  ['lane_policy', ['wait', null, 1, '']],
  ['queue', [null, ...notText]],
  ['priority', ['1', 1.5, 1_000_001, -1_000_001, 1e300, null, true]],
  ['run_at', ['tomorrow', 1, '2026-01-01', '2026-13-01T00:00:00Z', '2026-02-30T00:00:00Z']],
  ['run_at', ['0000-01-01T00:00:00Z', '0001-01-01T00:00:00+23:00', '9999-12-31T23:59:59-23:00']],
  ['hold_lane_on_human', ['true', 1, null]],
  ['owner', notText],
  ['timeouts', [null, [], 'x', 1]],
  ['timeouts.reasoning', [30, '30', '', '-1s', 'soon', null, '0s']],
  ['timeouts.tool', [30, '30', '1y', '25d']],
  ['timeouts.turn', [30, '1.5ms']],
  ['execution_timeout_override', [30, 'soon', '0s', '']],
  ['callback_url', [1, 'http://127.0.0.1:1/']],
  ['metadata', [null, [], 'x', 1]],
  ['input', [null, [], 'text', 1]],
]

const bodyWith = (path: string, value: unknown): Record<string, unknown> => {
  const [field = '', inner] = path.split('.')
  return { ...scripted([]), [field]: inner === undefined ? value : { [inner]: value } }
}

describe('POST /runs', () => {
  test.each(wrong.flatMap(([path, values]) => values.map((value) => ({ path, value }))))(
    'refuses $path = $value and names the field',
    async ({ path, value }) => {
      const response = await post('/runs', bodyWith(path, value))

      expectProblem(response, { status: 422, code: 'validation_error', paths: [path] })
    },
  )

  test.each([
    ['agent', 'nobody', 'unknown_agent'],
    ['agent', 'scripted:', 'unknown_agent'],
    ['queue', 'nowhere', 'unknown_queue'],
  ])('refuses %s = %s with a code of its own', async (path, value, code) => {
    const response = await post('/runs', bodyWith(path, value))

    expectProblem(response, { status: 422, code, paths: [path] })
  })

  test.each([
    ['slack', 'sender_key'],
    ['telegram', 'sender_key'],
    ['inbox', 'inbox_item_id'],
    ['schedule', 'task_run_id'],
    ['child', 'surface'],
  ])('needs for surface %s what its lane is made of', async (surface, path) => {
    const response = await post('/runs', scripted([], { surface }))

    expectProblem(response, { status: 422, code: 'validation_error', paths: [path] })
  })

  test.each([
    [{ converstion_id: 'c' }, 'converstion_id', 'conversation_id'],
    [{ prioritie: 1 }, 'prioritie', 'priority'],
    [{ timeouts: { resoning: '1s' } }, 'timeouts.resoning', 'reasoning'],
    [JSON.parse('{"__proto__":{}}'), '__proto__', undefined],
  ])('refuses the unknown field in %j with the nearest name', async (more, path, near) => {
    const body = JSON.stringify({ ...scripted([]), ...more })
    const response = await post('/runs', body)

    expectProblem(response, { status: 422, code: 'validation_error', paths: [path] })
    if (near !== undefined)
      expect(response.body.errors[0].message).toContain(`did you mean "${near}"?`)
  })

  test.each([
    'agent',
    'conversation_id',
    'surface',
    'channel',
    'sender_key',
    'inbox_item_id',
    'task_run_id',
    'lane_key',
    'lane_policy',
    'queue',
    'run_at',
    'owner',
    'timeouts.tool',
    'execution_timeout_override',
    'metadata.deep',
    'input.steps',
  ])('refuses NUL and lone surrogates in %s', async (path) => {
    for (const text of [NUL, LONE]) {
      const response = await post('/runs', bodyWith(path, text))
      expectProblem(response, { status: 422, code: 'validation_error', paths: [path] })
    }
  })

  test('refuses NUL and lone surrogates deep inside input and metadata, in values and keys', async () => {
    for (const text of [NUL, LONE]) {
      const value = await post('/runs', scripted([{ tool: 't', result: { a: [{ b: text }] } }]))
      expectProblem(value, {
        status: 422,
        code: 'validation_error',
        paths: ['input.steps[0].result.a[0].b'],
      })
      for (const field of ['input', 'metadata']) {
        const body = { ...scripted([]), [field]: { a: { [text]: 1 } } }
        const key = await post('/runs', body)
        expectProblem(key, { status: 422, code: 'validation_error' })
        expect(key.body.errors[0].path).toMatch(new RegExp(`^${field}\\.a\\.a`))
      }
    }
  })

  test('refuses numbers that no database holds, keys over 255 characters and nesting beyond 64 levels', async () => {
    const number = '{"agent":"scripted","input":{"steps":[]},"metadata":{"a":[1e400]}}'
    expectProblem(await post('/runs', number), {
      status: 422,
      code: 'validation_error',
      paths: ['metadata.a[0]'],
    })

    const key = await post('/runs', scripted([], { metadata: { [long]: 1 } }))
    expectProblem(key, { status: 422, code: 'validation_error' })
    expect(key.body.errors[0].path).toMatch(/^metadata\.xxx/)

    for (const levels of [65, 10_000]) {
      const deep = `${'['.repeat(levels)}${']'.repeat(levels)}`
      const response = await post('/runs', `{"agent":"scripted","metadata":{"a":${deep}}}`)
      expectProblem(response, { status: 422, code: 'validation_error' })
      expect(response.body.errors[0].path).toMatch(/^metadata\.a\[0\]/)
    }
  })

  test('answers 400 to what is not JSON or not UTF-8', async () => {
    for (const body of ['{', 'nope', '{"agent":"scripted",}', "{'agent':1}", '\u0000']) {
      expectProblem(await post('/runs', body), { status: 400, code: 'bad_request' })
    }
    const latin1 = Buffer.from('{"agent":"scripted","owner":"\xe9"}', 'latin1')
    expectProblem(await postBytes('/runs', [latin1]), { status: 400, code: 'bad_request' })
  })

  test('answers 422 to JSON that is no object', async () => {
    for (const body of ['[]', 'null', '1', '"agent"', 'true']) {
      const response = await post('/runs', body)
      expectProblem(response, { status: 422, code: 'validation_error', paths: [''] })
    }
    const none = await post('/runs')
    expectProblem(none, { status: 422, code: 'validation_error', paths: ['agent'] })
  })

  test('answers 413 to a body over RUNLANE_BODY_LIMIT, with and without a content-length', async () => {
    const body = Buffer.from(JSON.stringify(scripted([], { metadata: { a: 'x'.repeat(70_000) } })))
    const wanted = { status: 413, code: 'body_too_large' }
    const known = await postBytes('/runs', [body], { 'content-length': String(body.length) })
    expectProblem(known, wanted)
    expect(known.body.detail).toContain(String(LIMIT_BYTES))

    const half = Math.ceil(body.length / 2)
    expectProblem(await postBytes('/runs', [body.subarray(0, half), body.subarray(half)]), wanted)
    const endless = Array.from({ length: 64 }, () => Buffer.alloc(64 * 1024, 'x'))
    expectProblem(await postBytes('/runs', endless), wanted)
  })

  test('takes the key of Idempotency-Key with 1 to 255 characters only', async () => {
    for (const key of ['', long]) {
      const response = await post('/runs', scripted([]), { 'idempotency-key': key })
      expectProblem(response, {
        status: 422,
        code: 'validation_error',
        paths: ['Idempotency-Key'],
      })
    }
  })
})

describe('POST /runs/batch', () => {
  test.each<[unknown, string]>([
    [{}, 'runs'],
    [{ runs: [] }, 'runs'],
    [{ runs: {} }, 'runs'],
    [{ runs: [scripted([])], run: 1 }, 'run'],
    [{ runs: [scripted([]), 1] }, 'runs[1]'],
    [{ runs: [scripted([]), { agent: 1, input: { steps: [] } }] }, 'runs[1].agent'],
    [{ runs: [scripted([]), scripted([{ think: 'x' }])] }, 'runs[1].input.steps[0].think'],
    [{ runs: [scripted([]), scripted([], { surface: 'slack' })] }, 'runs[1].sender_key'],
    [{ runs: [scripted([]), scripted([], { owner: NUL })] }, 'runs[1].owner'],
    [{ runs: [scripted([], { lane_policy: 'coalesce' })] }, 'runs[0].lane_policy'],
  ])('refuses all of %j and names the field', async (body, path) => {
    const response = await post('/runs/batch', body)

    expectProblem(response, { status: 422, code: 'validation_error', paths: [path] })
  })

  test('refuses all when one names no agent or queue, knows the nearest field, takes 1,000 at most', async () => {
    const agent = await post('/runs/batch', { runs: [scripted([]), { agent: 'nobody' }] })
    expectProblem(agent, { status: 422, code: 'unknown_agent', paths: ['runs[1].agent'] })
    const queue = await post('/runs/batch', { runs: [scripted([]), scripted([], { queue: 'q' })] })
    expectProblem(queue, { status: 422, code: 'unknown_queue', paths: ['runs[1].queue'] })

    const near = await post('/runs/batch', { runs: [{ ...scripted([]), prioritie: 1 }] })
    expectProblem(near, { status: 422, code: 'validation_error', paths: ['runs[0].prioritie'] })
    expect(near.body.errors[0].message).toContain('"priority"')

    const many = Array.from({ length: 1001 }, () => ({ agent: 'a' }))
    const response = await post('/runs/batch', { runs: many })
    expectProblem(response, { status: 422, code: 'validation_error', paths: ['runs'] })
  })

  test('leaves nothing behind when the lane of one of its runs is busy', async () => {
    const reject = scripted([], { lane_key: 'L', lane_policy: 'reject' })
    const response = await post('/runs/batch', { runs: [reject, reject] })

    expectProblem(response, { status: 409, code: 'lane_busy' })
  })
})

test('nothing of all this is in the database, and nothing of it failed inside', async () => {
  const sql = postgres(databaseUrl, { max: 1 })
  try {
    for (const table of ['agent_runs', 'agent_run_payloads', 'agent_events', 'run_commands']) {
      const [row] = await sql`select count(*)::int as n from ${sql(`runlane.${table}`)}`
      expect({ table, rows: row?.['n'] }).toEqual({ table, rows: 0 })
    }
  } finally {
    await sql.end()
  }
  expect(service.stderr()).not.toMatch(/"level":"error"/)
})
