import { randomInt } from 'node:crypto'
import { Agent, request as send } from 'node:http'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { judgeOf } from '../support/answer-judge.ts'
import { contractOf, routesOf } from '../support/contract.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type FuzzRequest, fuzzRequests, REAL } from '../support/fuzz-requests.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

const SEED = Number(process.env['FUZZ_SEED'] || randomInt(2 ** 31))
const COUNT = Number(process.env['FUZZ_REQUESTS'] || 10_000)
const AT_ONCE = 24
/** Waits in the requests are shorter by far: whatever takes so long hangs. */
const ANSWER_MS = 15_000

const databaseUrl = await freshDatabase()
const nowhere = 'http://127.0.0.1:9/v1'
const service = await startService({
  databaseUrl,
  env: {
    RUNLANE_RATE_LIMIT: '1000000',
    RUNLANE_BODY_LIMIT: '64kb',
    OPENAI_BASE_URL: nowhere,
    ANTHROPIC_BASE_URL: nowhere,
  },
})
afterAll(() => service.kill())
const sql = postgres(databaseUrl, { max: 1 })
afterAll(() => sql.end())
const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
afterAll(() => agent.destroy())
const admin = api(service)

const contract = await contractOf(service.url)
const routes = routesOf(contract)
const judge = judgeOf(contract)

const tokens: Record<string, string> = { admin: service.token, stranger: 'rl_nobody' }
/** What is there when the requests come, by the names that they use for it. */
const there: Record<string, string[]> = {
  name: ['scripted', 'assistant', 'declared'],
  file: ['run', 'run.svg', 'run.mmd', 'node', 'nothing'],
  conversation: ['c1', 'c2', 'c3'],
}

beforeAll(async () => {
  const created = async (name: string, role: string) =>
    (await admin.post('/api/v1/admin/tokens', { name, role })).body as { id: string; token: string }
  for (const role of ['viewer', 'service', 'operator'])
    tokens[role] = (await created(role, role)).token
  there['login'] = [(await created('login', 'viewer')).token, tokens['service'] ?? '']
  const spare = Array.from({ length: 15 }, (_, n) => created(`spare-${n}`, 'viewer'))
  there['spare_token'] = (await Promise.all(spare)).map(({ id }) => id)
  const steps = [[], [{ fail: 'no' }], [{ think: 600_000 }], [{ tool: 't' }, { return: 1 }]]
  const runs = Array.from({ length: 20 }, (_, n) =>
    scripted(steps[n % 4] ?? [], { conversation_id: `c${n % 5}`, lane_key: `own-${n}` }),
  )
  const agents = Array.from({ length: 30 }, (_, n) => `spare-agent-${n}`)
  for (const name of agents) await admin.post('/agents', { name, models: ['openai:gpt-5.2'] })
  there['spare_agent'] = agents
  // For those who end what is active: nobody else names these.
  const active = Array.from({ length: 40 }, (_, n) =>
    scripted([{ think: 600_000 }], { conversation_id: `active-${n}` }),
  )
  const parents = await admin.createBatch(
    Array.from({ length: 8 }, () =>
      scripted([{ delegate: { agent: 'scripted', input: { steps: [{ think: 600_000 }] } } }]),
    ),
  )
  there['subagent'] = await eventually(async () => {
    const lists = await Promise.all(
      parents.map(({ run_id }) => admin.get(`/runs/${run_id}/children`)),
    )
    const ids = lists.flatMap(({ body }) => body.children.map((one: Run) => one.run_id))
    return ids.length === parents.length && ids
  })
  const begun = await admin.createBatch(active)
  there['extendable'] = begun.splice(0, 5).map(({ run_id }) => run_id)
  there['conversation_id'] = begun.map(({ conversation_id }) => conversation_id)
  there['run_id'] = (await admin.createBatch(runs)).map(({ run_id }) => run_id)
})

const real = (text: string): string =>
  text.replaceAll(REAL, (_whole, name: string, nth: string) => {
    const known = there[name] ?? []
    return known[Number(nth) % known.length] ?? ''
  })

type Answered = { status: number; contentType: string; text: string }

const answerTo = ({ method, target, caller, headers, body }: FuzzRequest): Promise<Answered> =>
  new Promise((resolve, reject) => {
    const token = tokens[caller]
    const content = body && Buffer.from(real(body.toString('latin1')), 'latin1')
    const outgoing = send(service.url, {
      agent,
      method,
      path: real(target),
      headers: {
        ...headers,
        ...(content === undefined ? {} : { 'content-length': content.length }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      timeout: ANSWER_MS,
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')))
    outgoing.on('error', reject)
    outgoing.on('response', (incoming) => {
      const contentType = incoming.headers['content-type'] ?? ''
      const answered = (text: string) =>
        resolve({ status: incoming.statusCode ?? 0, contentType, text })
      if (contentType.startsWith('text/event-stream') && method !== 'HEAD') {
        incoming.destroy()
        return answered('')
      }
      let text = ''
      incoming.setEncoding('utf8').on('data', (part: string) => (text += part))
      incoming.on('error', reject).on('end', () => answered(text))
    })
    outgoing.end(content)
  })

/** The route that a request is about; undefined where its path leads elsewhere, or nowhere. */
const routeOf = ({ route, method, target }: FuzzRequest) => {
  const path = target.split('?')[0] ?? ''
  if (/\/(\.|%2e){0,2}(\/|$)/i.test(path) && path !== '/') return undefined
  if (/%00/.test(path)) return undefined
  return routes.find(
    (one) => one.path === route.path && one.method === (method === 'HEAD' ? 'GET' : method),
  )
}

const all = async (
  requests: readonly FuzzRequest[],
  judged: (nth: FuzzRequest, got: Answered) => void,
) => {
  const left = requests.values()
  const worker = async (): Promise<void> => {
    for (const one of left) judged(one, await answerTo(one).catch(failed))
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
const failed = (error: Error): Answered => ({ status: 0, contentType: '', text: error.message })

const shown = ({ method, target, caller, headers, body }: FuzzRequest): string =>
  JSON.stringify({
    method,
    target: real(target),
    caller,
    headers,
    body: body?.toString('latin1').slice(0, 500),
  })

/** Rows of every table but the audit trail. */
const rows = async (): Promise<Record<string, number>> => {
  const tables = await sql<
    { name: string }[]
  >`select table_name as name from information_schema.tables
    where table_schema = 'runlane' and table_name <> 'audit_events' order by 1`
  const counts: Record<string, number> = {}
  for (const { name } of tables) {
    const [row] = await sql<
      { n: number }[]
    >`select count(*)::int as n from ${sql(`runlane.${name}`)}`
    counts[name] = row?.n ?? 0
  }
  return counts
}

test(`${COUNT} requests by the document: promised answers only, and what is refused is not stored`, async () => {
  console.log(`FUZZ_SEED=${SEED} FUZZ_REQUESTS=${COUNT}`)
  const requests = fuzzRequests(routes, contract, { seed: SEED, count: COUNT })
  const faults: string[] = []
  const refused: FuzzRequest[] = []
  const taken = new Set<string>()
  const seen: Record<number, number> = {}

  await all(requests, (request, got) => {
    // A head that is too long for Node's parser is refused before there are routes.
    const route = got.status === 431 ? undefined : routeOf(request)
    const fault = judge(got, route, request.method)
    const body = got.text.slice(0, 500)
    if (fault !== undefined) faults.push(`${got.status} ${fault}\n  ${shown(request)}\n  ${body}`)
    if (route && got.status < 300) taken.add(route.name)
    if (got.status >= 400 && got.status !== 409) refused.push(request)
    seen[got.status] = (seen[got.status] ?? 0) + 1
  })

  console.log(JSON.stringify(seen))
  expect(faults.slice(0, 10).join('\n')).toBe('')
  // A fuzzer that nothing ever takes only tests the first check of each route. What needs a run in the right state is rare:
  // a seed may miss one or two of those, never many.
  const never = routes.map(({ name }) => name).filter((name) => !taken.has(name))
  if (COUNT >= 5_000) expect(never.length, never.join(', ')).toBeLessThanOrEqual(4)

  // Nothing goes on by itself any more: what is stored from here on, a refused request has stored.
  for (;;) {
    const { runs } = (await admin.get(`/runs?status=${ACTIVE}&limit=1000`)).body as {
      runs: { run_id: string }[]
    }
    if (runs.length === 0) break
    await Promise.all(runs.map(({ run_id }) => admin.cancel(run_id)))
    await Promise.all(runs.map(({ run_id }) => admin.waitForRun(run_id)))
  }
  let again = refused
  await eventually(
    async () => {
      const before = await rows()
      const still: FuzzRequest[] = []
      await all(again, (request, got) => void (got.status >= 400 && still.push(request)))
      // What was unknown the first time may have been declared since.
      const isSame = still.length === again.length
      again = still
      if (!isSame) return false
      expect(await rows()).toEqual(before)
      return true
    },
    { timeoutMs: 60_000, message: `nothing stored by refused requests, seed ${SEED},` },
  )
}, 180_000)

const ACTIVE =
  'queued,waiting_on_lane,resuming,running,waiting_on_tool,waiting_on_child,cancel_requested,waiting_on_human'

test('the service is well after that, has logged no failure, and drains', async () => {
  expect((await admin.get('/readyz')).status).toBe(200)
  const errors = service
    .stderr()
    .split('\n')
    .filter((line) => line.includes('"level":"error"'))
  expect(errors).toEqual([])
  expect(service.stderr()).not.toMatch(/unhandled|uncaught|\bat .*\.ts:\d+/i)
  expect(await service.stop()).toEqual({ code: 0, signal: null })
})
