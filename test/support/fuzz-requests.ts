import fc, { type Arbitrary } from 'fast-check'
import type { Json } from './api.ts'
import type { Contract, Route } from './contract.ts'

/** A request as it is sent, but for names that only the running service knows: see `REAL`. */
export type FuzzRequest = {
  readonly route: Route
  readonly method: string
  /** Path and query, ready for the request line. */
  readonly target: string
  readonly caller: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer | undefined
}

/** Stands for the nth of the things that are there: `@run_id:3@` in a path or a body. */
export const REAL = /@(\w+):(\d+)@/g

/** Texts that break what does not expect them. */
const NASTY = [
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\uffff',
  '😀'.repeat(70),
  'x'.repeat(256),
  'x'.repeat(4_000),
  '../../etc/passwd',
  '%00',
  '%',
  "'; drop table runlane.agent_runs; --",
  '<script>alert(1)</script>',
  '__proto__',
  'constructor',
  'NaN',
  '-1',
  '0',
  '9'.repeat(15),
  '9'.repeat(30),
  '1e400',
  'null',
  '\u202e\u0000\u0007',
  '0001-01-01T00:00:00Z',
  '99999-01-01T00:00:00Z',
  '2026-02-30T25:61:00Z',
  '1ms',
  '9'.repeat(40) + 'd',
]
const nastyText = fc.oneof(fc.constantFrom(...NASTY), fc.string({ unit: 'binary', maxLength: 40 }))
const deep = (levels: number): Json => (levels === 0 ? [] : { a: [deep(levels - 1)] })
const nasty: Arbitrary<Json> = fc.oneof(
  nastyText,
  fc.constantFrom(null, true, false, -1, 0, 0.5, 1e15, 2 ** 31, 2 ** 53, 1e308, -1e308, 5e-324),
  fc.constantFrom([], {}, [[]], deep(31), deep(33), deep(2_000), { __proto__: { a: 1 } }),
  fc.jsonValue({ maxDepth: 3 }),
)

/** What is likely to be taken, where a schema alone says too little. */
const HINTS: Readonly<Record<string, Arbitrary<Json>>> = {
  agent: fc.constant('scripted'),
  queue: fc.constant('default'),
  surface: fc.constantFrom('api', 'chat', 'email'),
  callback_url: fc.constantFrom(null, null, 'http://127.0.0.1:9/', 'http://[', 'ftp://x'),
  execution_timeout_override: fc.constantFrom('30s', '10m'),
  timeouts: fc.constantFrom({}, { reasoning: '30s' }, { tool: '1.5m', turn: '1h' }),
  lane_policy: fc.constantFrom('enqueue', 'enqueue', 'reject', 'interrupt', 'coalesce'),
  lane_key: fc.constantFrom('lane-1', 'lane-2', 'lane-3'),
  conversation_id: fc.constantFrom('c1', 'c2', 'c3'),
  run_at: fc.constant(null),
  input: fc.record({
    steps: fc.array(
      fc.oneof(
        fc.record({ say: fc.string() }),
        fc.record({ think: fc.integer({ min: 0, max: 50 }) }),
        fc.record({ return: fc.jsonValue({ maxDepth: 1 }) }),
        fc.record({ fail: fc.string() }),
        fc.record({ tool: fc.constant('t'), result: fc.jsonValue({ maxDepth: 1 }) }),
      ),
      { maxLength: 3 },
    ),
  }),
  models: fc.constant(['openai:gpt-5.2']),
  url: fc.constantFrom(
    'http://127.0.0.1:9/tool',
    'http://10.0.0.1/',
    'ftp://x',
    'no url',
    'http://[',
  ),
  // What is no text of a header is refused by the client before it is sent.
  headers: fc.constantFrom({}, { 'x-key': 'k' }, { host: 'x' }, { 'bad name': 'x' }),
  wait: fc.constantFrom('0ms', '5ms', '20ms', '1', '6m', '-1s', 'soon'),
  token: fc.constantFrom('@login:0@', '@login:1@', 'rl_wrong', 'a.b.c', 'eyJhbGciOiJub25lIn0.e30.'),
  reason: fc.constantFrom('because', ''),
  checkpoint_id: fc.nat(20).map((nth) => `@run_id:${nth}@.3`),
  // Nothing that other requests live on.
  filter: fc.constantFrom<Json>(
    { run_ids: ['run_none', '@run_id:3@'] },
    { conversation_id: 'c1', status: ['failed', 'timed_out'] },
    { agent: 'nobody', status: 'running', stuck: true, orphan: false },
    { q: 'nowhere', since: '9000-04-15T10:01:23+02:00' },
    { stuck: false },
    {},
  ),
  answer: fc.constantFrom<Json>({ outcome: 'retry' }, 'yes', {}),
}

/** Values by an object of JSON Schema. */
const likely = (schema: Json, contract: Contract, hint = ''): Arbitrary<Json> => {
  const known = Object.hasOwn(HINTS, hint) ? HINTS[hint] : undefined
  if (known) return known
  const { $ref, anyOf, enum: choices, type, pattern, format } = schema
  if ($ref) return likely(contract.components.schemas[$ref.split('/').at(-1)], contract)
  if (anyOf) return fc.oneof(...anyOf.map((one: Json) => likely(one, contract)))
  if ('const' in schema) return fc.constant(schema.const)
  if (choices) return fc.constantFrom(...choices)
  if (Array.isArray(type))
    return fc.oneof(...type.map((one) => likely({ ...schema, type: one }, contract)))
  if (type === 'null') return fc.constant(null)
  if (type === 'boolean') return fc.boolean()
  if (type === 'integer' || type === 'number')
    return fc.integer({
      min: Math.max(schema.minimum ?? -1_000, -(2 ** 31)),
      max: Math.min(schema.maximum ?? 1_000, 2 ** 31 - 1),
    })
  if (format === 'date-time')
    return fc.date({ noInvalidDate: true }).map((date) => date.toISOString())
  if (pattern) {
    const matching = fc.stringMatching(new RegExp(pattern), { size: 'small' })
    // The name of something that other requests ask for.
    return hint === 'name' ? fc.oneof(matching, fc.constant('declared')) : matching
  }
  if (type === 'string') {
    const maxLength = Math.min(schema.maxLength ?? 40, 40)
    return fc.string({ minLength: schema.minLength ?? 0, maxLength })
  }
  if (type === 'array') {
    const items = likely(schema.items ?? {}, contract)
    return fc.array(items, { minLength: schema.minItems ?? 0, maxLength: schema.minItems ?? 2 })
  }
  if (type !== 'object') return fc.jsonValue({ maxDepth: 2 })
  const fields = Object.entries<Json>(schema.properties ?? {})
  return fc.record(
    Object.fromEntries(fields.map(([name, one]) => [name, likely(one, contract, name)])),
    { requiredKeys: schema.required ?? [] },
  )
}

/** One thing about a body is other than it should be. */
const broken = (body: Json): Arbitrary<Json> => {
  const isObject = typeof body === 'object' && body !== null && !Array.isArray(body)
  if (!isObject) return nasty
  const keys = Object.keys(body)
  const added = fc.tuple(nastyText, nasty).map(([key, value]) => ({ ...body, [key]: value }))
  if (keys.length === 0) return fc.oneof(added, nasty)
  const replaced = fc
    .tuple(fc.constantFrom(...keys), nasty)
    .map(([key, value]) => ({ ...body, [key]: value }))
  const dropped = fc.constantFrom(...keys).map((key) => {
    const { [key]: _dropped, ...rest } = body
    return rest
  })
  const inside = fc
    .constantFrom(...keys)
    .chain((key) => broken(body[key]).map((value) => ({ ...body, [key]: value })))
  return fc.oneof(added, replaced, dropped, inside, nasty)
}

const textOf = (value: Json): Buffer => Buffer.from(JSON.stringify(value) ?? '')
/** Bodies that are no JSON, or more than a parser expects. */
const garbage: Arbitrary<Buffer> = fc.oneof(
  fc
    .constantFrom(
      ...['', ' ', '{', '{"a":1}}', '[1,2', 'null', '"text"', '7', '{"a":1e400}', '{"a":\u0000}'],
      '{"reason":"\\u0000"}',
      '{"reason":"\\ud800"}',
      '{"reason":1,"reason":2}',
      '{"__proto__":{"a":1}}',
      '['.repeat(20_000),
      `{"reason":"${'x'.repeat(70_000)}"}`,
    )
    .map((text) => Buffer.from(text)),
  fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)),
)

const TYPES = [
  'application/json',
  'application/json; charset=utf-16',
  'text/plain',
  'application/x-www-form-urlencoded',
  'multipart/form-data; boundary=x',
  'nonsense',
]
/** Callers by the names that the test gives them. */
const caller = fc.oneof(
  { weight: 7, arbitrary: fc.constant('admin') },
  { weight: 4, arbitrary: fc.constantFrom('viewer', 'service', 'operator', 'nobody', 'stranger') },
)

const segment = (name: string): Arbitrary<string> =>
  fc.oneof(
    { weight: 4, arbitrary: fc.nat(20).map((nth) => `@${name}:${nth}@`) },
    { weight: 1, arbitrary: nastyText.map((text) => encodeURIComponent(text.toWellFormed())) },
    {
      weight: 1,
      arbitrary: fc.constantFrom('%', '%ff', '%00', '%2e%2e', '*', ';a=b', ''),
    },
  )

const queryOf = ({ operation }: Route, contract: Contract): Arbitrary<string> => {
  const known = (operation.parameters ?? []).filter((one) => one.in === 'query')
  const pair = fc.oneof(
    ...known.map(({ name, schema }) =>
      likely(schema, contract, name).map((value) => [name, String(value)] as const),
    ),
    ...known.map(({ name }) => nastyText.map((text) => [name, text] as const)),
    fc.tuple(nastyText, nastyText),
  )
  const encoded = pair.map((both) =>
    both.map((text) => encodeURIComponent(text.toWellFormed())).join('='),
  )
  const many = fc.array(encoded, { maxLength: 3 }).map((all) => all.join('&'))
  return fc.oneof(
    // Any query is too much for an operation that knows none.
    { weight: known.length > 0 ? 4 : 20, arbitrary: fc.constant('') },
    { weight: 5, arbitrary: many },
    { weight: 1, arbitrary: encoded.map((one) => `${one}&${one}`) },
    { weight: 1, arbitrary: fc.constantFrom('%', '&&&', '=', '%ff=%ff', 'a[]=1', 'limit=%00') },
  )
}

const headersOf = (): Arbitrary<Record<string, string>> =>
  fc.record(
    {
      'content-type': fc.constantFrom(...TYPES),
      accept: fc.constantFrom('*/*', 'text/html', 'application/json', 'image/png', ''),
      'idempotency-key': fc.oneof(
        fc.constantFrom('k1', 'k2', '', 'x'.repeat(256), '\u00e9', "' or 1"),
        fc.uuid(),
      ),
      'last-event-id': fc.constantFrom('', '0', '5', '-1', 'x', '9'.repeat(15), '9'.repeat(40)),
      'hx-request': fc.constantFrom('true', 'false'),
      'sec-fetch-site': fc.constantFrom('same-origin', 'cross-site', 'none', '?'),
      cookie: fc.constantFrom('__Host-runlane=x', '__Host-runlane=', ';;;', 'a=%ff'),
      'x-request-id': fc.constantFrom('r1', 'x'.repeat(300), '\u00e9'),
      traceparent: fc.constantFrom('00-x', `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`),
    },
    { requiredKeys: [] },
  )

const bodyOf = ({ operation }: Route, contract: Contract): Arbitrary<Buffer | undefined> => {
  const schema = operation.requestBody?.content['application/json'].schema
  if (schema === undefined) return fc.option(garbage, { freq: 12, nil: undefined })
  const fitting = likely(schema, contract)
  return fc.oneof(
    { weight: 5, arbitrary: fitting.map(textOf) },
    { weight: 4, arbitrary: fitting.chain(broken).map(textOf) },
    { weight: 1, arbitrary: garbage },
  )
}

const requestTo = (route: Route, contract: Contract): Arbitrary<FuzzRequest> => {
  const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name)
  // A session that is logged out or a token that is revoked must not be one that the test lives on.
  const kind = (name: string): string => {
    if (route.path.endsWith('/extend')) return 'extendable'
    if (route.path.endsWith('/interrupt')) return 'subagent'
    if (route.method === 'DELETE' && name === 'name') return 'spare_agent'
    if (name !== 'id') return name
    return route.path.includes('tokens') ? 'spare_token' : 'conversation'
  }
  const method = fc.oneof(
    { weight: 30, arbitrary: fc.constant(route.method) },
    {
      weight: 1,
      arbitrary: fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'),
    },
  )
  return fc
    .record({
      method,
      segments: fc.tuple(...names.map((name) => segment(kind(name)))),
      query: queryOf(route, contract),
      caller,
      headers: headersOf(),
      body: bodyOf(route, contract),
    })
    .map(({ segments, query, ...rest }) => {
      let nth = 0
      const path = route.path.replaceAll(/\{\w+\}/g, () => segments[nth++] ?? '')
      return { ...rest, route, target: query === '' ? path : `${path}?${query}` }
    })
}

/** Requests to all routes in equal parts, the same ones for the same seed. */
export const fuzzRequests = (
  routes: readonly Route[],
  contract: Contract,
  { seed, count }: { seed: number; count: number },
): FuzzRequest[] => {
  const one = fc.oneof(...routes.map((route) => requestTo(route, contract)))
  return fc.sample(one, { seed, numRuns: count })
}
