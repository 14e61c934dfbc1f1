import fc from 'fast-check'
import { expect, test } from 'vitest'
import { expectProblem, scripted, serve } from './setup.ts'

// Another private address than the one it listens on: loopback is refused then.
const ALLOWED = '10.20.30.40'
const { service, get, post } = await serve('postgres', { env: { RUNLANE_WEBHOOK_ALLOW: ALLOWED } })

const runsWritten = async (): Promise<number> => (await get('/runs?limit=1000')).body.runs.length

test.each<[unknown, string]>([
  [{}, ''],
  [1, ''],
  ['think', ''],
  [null, ''],
  [[], ''],
  [{ think: '5' }, '.think'],
  [{ think: -1 }, '.think'],
  [{ think: 0.5 }, '.think'],
  [{ think: 1e12 }, '.think'],
  [{ think: 1, ms: 2 }, '.ms'],
  [{ say: 1 }, '.say'],
  [{ say: 'x', chunks: 0 }, '.chunks'],
  [{ say: 'x', chunks: 1.5 }, '.chunks'],
  [{ say: 'x', ms: '1' }, '.ms'],
  [{ tool: '' }, '.tool'],
  [{ tool: 1 }, '.tool'],
  [{ tool: 'x'.repeat(256) }, '.tool'],
  [{ tool: 'a', ms: -1 }, '.ms'],
  [{ tool: 'a', fail: 1 }, '.fail'],
  [{ tool: 'a', hang: 'yes' }, '.hang'],
  [{ tool: 'a', effects: 'maybe' }, '.effects'],
  [{ tool: 'a', call_id: '' }, '.call_id'],
  [{ tool: 'a', call_id: 1 }, '.call_id'],
  [{ tool: 'a', efects: 'none' }, '.efects'],
  [{ http: 1 }, '.http'],
  [{ http: '' }, '.http'],
  [{ http: 'nowhere' }, '.http'],
  [{ http: 'ftp://example.test/' }, '.http'],
  [{ http: 'http://user:secret@example.test/' }, '.http'],
  [{ http: `http://example.test/${'x'.repeat(2048)}` }, '.http'],
  [{ http: 'http://example.test/', effects: 1 }, '.effects'],
  [{ parallel: [] }, '.parallel'],
  [{ parallel: {} }, '.parallel'],
  [{ parallel: [{ tool: 'a' }, { tool: 1 }] }, '.parallel[1].tool'],
  [{ parallel: [{ http: 'http://127.0.0.1:1/' }] }, '.parallel[0].http'],
  [{ journal: 'x' }, '.journal'],
  [{ step: '' }, '.step'],
  [{ step: 'a', ms: 'x' }, '.ms'],
  [{ spin: 'x' }, '.spin'],
  [{ fail: 1 }, '.fail'],
])('the step %j is refused by its path', async (step, path) => {
  const response = await post('/runs', scripted([{ think: 0 }, step]))

  expectProblem(response, {
    status: 422,
    code: 'validation_error',
    paths: [`input.steps[1]${path}`],
  })
  expect(await runsWritten()).toBe(0)
})

test.each([{ model: { text: 'x' } }, { ask: 'sure?' }, { waitpoint: {} }, { wait: '2s' }])(
  'the step %j of a later version is refused by its name',
  async (step) => {
    const [kind = ''] = Object.keys(step)
    const response = await post('/runs', scripted([step]))

    expectProblem(response, {
      status: 422,
      code: 'validation_error',
      paths: [`input.steps[0].${kind}`],
    })
    expect(response.body.errors[0].message).toBe('is a step that this version does not support')
  },
)

test('what is wrong with the script as a whole is refused by its path', async () => {
  const call = { tool: 'a', call_id: 'twice' }
  const refused: [unknown, string][] = [
    [{}, 'input.steps'],
    [{ steps: {} }, 'input.steps'],
    [{ steps: [], step: [] }, 'input.step'],
    [{ steps: [], vars: [] }, 'input.vars'],
    [{ steps: Array.from({ length: 10_001 }, () => ({ think: 0 })) }, 'input.steps'],
    [{ steps: [call, { parallel: [{ tool: 'b' }, call] }] }, 'input.steps[1].parallel[1].call_id'],
  ]
  for (const [input, path] of refused) {
    const response = await post('/runs', { agent: 'scripted', input })
    expectProblem(response, { status: 422, code: 'validation_error', paths: [path] })
  }
  const typo = await post('/runs', scripted([{ thnk: 1 }]))
  expect(typo.body.errors).toEqual([
    { path: 'input.steps[0]', message: 'is no known step, did you mean "think"?' },
  ])
})

test('several findings come at once, at most a page of them', async () => {
  const bad = Array.from({ length: 500 }, () => ({ think: 'x' }))
  const response = await post('/runs', scripted(bad))

  expectProblem(response, { status: 422, code: 'validation_error' })
  expect(response.body.errors.length).toBeGreaterThan(1)
  expect(response.body.errors.length).toBeLessThan(50)
})

test.each([
  'http://127.0.0.1:7420/',
  'http://127.8.9.10/',
  'http://localhost/',
  'http://LOCALHOST:80/',
  'http://localhost./',
  'http://db.localhost/',
  'http://0.0.0.0/',
  'http://0x7f000001/',
  'http://2130706433/',
  'http://127.1/',
  'http://[::1]/',
  'http://[::]/',
  'http://[::ffff:127.0.0.1]/',
  'http://[::ffff:a00:1]/',
  'http://[fd00::1]/',
  'http://[fe80::1]/',
  'http://[64:ff9b::7f00:1]/',
  'http://10.20.30.41/',
  'http://172.16.0.1/',
  'http://192.168.1.1/',
  'http://169.254.169.254/latest/meta-data/',
  'http://100.64.0.1/',
])('an http step to the private address %s is refused when posted', async (http) => {
  const response = await post('/runs', scripted([{ http }]))

  expectProblem(response, {
    status: 422,
    code: 'validation_error',
    paths: ['input.steps[0].http'],
  })
  expect(response.body.errors[0].message).toContain('RUNLANE_WEBHOOK_ALLOW')
})

test('an allowed private address is accepted', async () => {
  // Due in ten years: nothing is sent to it here.
  const run_at = new Date(Date.now() + 10 * 365 * 86_400_000).toISOString()
  const response = await post('/runs', scripted([{ http: `http://${ALLOWED}/` }], { run_at }))

  expect(response.status).toBe(202)
})

test('whatever is posted as a body, the answer is a run or a problem, and only 202 makes runs', async () => {
  const field = fc.constantFrom(
    ...['agent', 'input', 'conversation_id', 'surface', 'lane_key', 'queue', 'priority', 'owner'],
    ...['run_at', 'metadata', 'timeouts', 'lane_policy', 'execution_timeout_override', 'other'],
  )
  const value = fc.jsonValue({ maxDepth: 4, stringUnit: 'binary' })
  const near = fc
    .dictionary(field, value, { maxKeys: 3 })
    .map((more) => ({ ...scripted([]), ...more }))
  const step = fc
    .dictionary(fc.constantFrom('think', 'say', 'tool', 'step', 'parallel', 'ms', 'fail'), value)
    .map((one) => scripted([one]))
  const before = await runsWritten()
  let made = 0

  await fc.assert(
    fc.asyncProperty(fc.oneof(near, step, value), async (body) => {
      const response = await post('/runs', JSON.stringify(body))
      if (response.status === 202) made += 1
      else expectProblem(response, { status: response.status, code: response.body.code })
      expect([202, 422]).toContain(response.status)
    }),
    { numRuns: 300 },
  )

  expect(await runsWritten()).toBe(before + made)
  expect(service.stderr()).not.toMatch(/"level":"error"/)
})
