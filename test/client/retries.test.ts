import type { RunDraft, RunlaneError } from 'runlane/client'
import { createClient } from 'runlane/client'
import { expect, onTestFinished, test } from 'vitest'
import { scripted, serve } from '../http/setup.ts'
import { eventually } from '../support/eventually.ts'
import { allOf, behindProxy, clientOf, failureOf } from './setup.ts'

const { service } = await serve('postgres', { env: { RUNLANE_RATE_LIMIT: '40' } })
const direct = clientOf(service)
const draft = (conversation_id: string) => scripted([], { conversation_id }) as RunDraft
const runsIn = (conversationId: string) => allOf(direct.listRuns({ conversationId }))

/** The requests that the client makes; connections are made by the platform as it likes. */
const countedFetch = () => {
  let made = 0
  const counted: typeof fetch = (input, init) => {
    made += 1
    return fetch(input, init)
  }
  return { fetch: counted, count: () => made }
}

test('a posted run whose answer is lost is posted again, and stays one run', async () => {
  const { proxy, client } = await behindProxy(service)
  proxy.loseAnswers(2)
  const { run_id } = await client.postRun(draft('lost'))

  expect(proxy.lost()).toBe(2)
  expect((await runsIn('lost')).map((run) => run.run_id)).toEqual([run_id])
  proxy.loseAnswers(1)
  const batch = await client.postRuns([draft('lost-batch'), draft('lost-batch')])
  expect(await runsIn('lost-batch')).toHaveLength(2)
  expect(batch).toHaveLength(2)
})

test('a command whose answer is lost is given once', async () => {
  const { proxy, client } = await behindProxy(service)
  const { run_id } = await direct.postRun(scripted([{ think: 60_000 }]) as RunDraft)
  proxy.loseAnswers(1)
  const { command } = await client.cancelRun(run_id, { reason: 'once' })

  expect(proxy.lost()).toBe(1)
  expect(command.kind).toBe('cancel')
  const rows = await allOf(direct.listAudit({ action: 'agent_runtime.cancel' }))
  const ofRun = () => rows.filter((row) => row.run_id === run_id)
  expect(ofRun().filter(({ outcome }) => outcome === 'refused')).toEqual([])
  expect((await direct.wait(run_id)).status).toBe('cancelled')
})

test('what carries no key is not repeated: whether it was done is left open', async () => {
  const { fetch: counted, count } = countedFetch()
  const { proxy, client } = await behindProxy(service, { fetch: counted })
  proxy.loseAnswers(1)
  const error = await failureOf(client.createToken({ name: 'once', role: 'viewer' }))

  expect(error).toMatchObject({ code: 'unreachable', status: undefined })
  expect(count()).toBe(1)
  expect((await direct.listTokens()).tokens.map(({ name }) => name)).toEqual(['once'])
})

test('a deletion whose answer is lost is carried out and audited once', async () => {
  const { proxy, client } = await behindProxy(service)
  const { id } = await direct.createToken({ name: 'leaving', role: 'viewer' })
  await direct.declareAgent({ name: 'leaving', models: ['openai:gpt-5.2'] })
  proxy.loseAnswers(1)
  await client.revokeToken(id, { reason: 'left' })
  proxy.loseAnswers(1)
  await client.deleteAgent('leaving', { reason: 'left' })

  expect(proxy.lost()).toBe(2)
  for (const action of ['token.revoke', 'agent.delete'])
    expect(await allOf(direct.listAudit({ action }))).toMatchObject([
      { outcome: 'applied', reason: 'left' },
    ])
})

test('a token asked for under a key is made once, and a lost secret is said to be lost', async () => {
  const { proxy, client } = await behindProxy(service)
  proxy.loseAnswers(1)
  const wanted = { name: 'keyed', role: 'viewer' } as const
  const made = await client.createToken(wanted, { idempotencyKey: 'token-1' })

  expect(proxy.lost()).toBe(1)
  expect(made).toMatchObject({ name: 'keyed', role: 'viewer' })
  expect(made.token).toBeUndefined()
  const { tokens } = await direct.listTokens()
  expect(tokens.filter(({ name }) => name === 'keyed')).toEqual([made])
})

test('a declared agent whose answer is lost is declared again, and stays as one request', async () => {
  const { proxy, client } = await behindProxy(service)
  proxy.loseAnswers(1)
  const agent = await client.declareAgent({ name: 'lost', models: ['openai:gpt-5.2'] })

  expect(proxy.lost()).toBe(1)
  expect(agent).toMatchObject({ name: 'lost', kind: 'declared' })
  const rows = await allOf(direct.listAudit({ action: 'agent.declare' }))
  expect(rows.filter(({ target }) => target === 'lost')).toHaveLength(1)
})

test('a read goes on when connections are cut, and when the service is back', async () => {
  const { proxy, client } = await behindProxy(service)
  await client.whoAmI()
  proxy.cutAll()
  expect(await client.whoAmI()).toMatchObject({ role: 'admin' })

  proxy.refuse(true)
  proxy.cutAll()
  const asked = client.whoAmI()
  await eventually(() => proxy.refused() >= 2)
  proxy.refuse(false)
  expect(await asked).toMatchObject({ role: 'admin' })
})

test('it gives up after the retries that were granted, and says what it could not reach', async () => {
  const { fetch: counted, count } = countedFetch()
  const { proxy, client } = await behindProxy(service, { retries: 2, fetch: counted })
  proxy.refuse(true)
  const error = (await failureOf(client.whoAmI())) as RunlaneError

  expect(error).toMatchObject({ code: 'unreachable', status: undefined })
  expect(error.detail).toContain(proxy.url)
  expect(count()).toBe(3)
  expect(error.detail).not.toContain(service.token)
})

test('an answer that does not come counts as a lost connection', async () => {
  const { fetch: counted, count } = countedFetch()
  const options = { retries: 1, timeoutMs: 200, fetch: counted }
  const { proxy, client } = await behindProxy(service, options)
  proxy.freeze(true)
  const error = (await failureOf(client.whoAmI())) as RunlaneError
  expect(error).toMatchObject({ code: 'unreachable' })
  expect(error.detail).toContain('within 200 ms')
  expect(count()).toBe(2)
})

test('a wait ends by its time also while nothing is there to answer', async () => {
  const { proxy, client } = await behindProxy(service)
  proxy.refuse(true)
  const error = await failureOf(client.wait('run_any', { timeoutMs: 300 }))
  expect(error).toMatchObject({ code: 'wait_timeout' })
})

test('too many requests come again when the service says so', async () => {
  const impatient = clientOf(service, { retries: 0 })
  const burst = await Promise.allSettled(Array.from({ length: 80 }, () => impatient.whoAmI()))
  const refused = burst.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []))
  expect(refused.length).toBeGreaterThan(0)
  for (const error of refused)
    expect(error).toMatchObject({ status: 429, code: 'rate_limited', retryAfterMs: 1000 })

  // One retry is enough, because it waits for as long as it is told, not for the back-off alone.
  await direct.whoAmI()
  const obedient = clientOf(service, { retries: 1 })
  const answers = await Promise.all(Array.from({ length: 60 }, () => obedient.whoAmI()))
  expect(answers).toHaveLength(60)
})

test('something that is no Runlane service is told from one', async () => {
  const { createServer } = await import('node:http')
  const server = createServer((request, response) => {
    const redirects = request.url === '/runs/moved'
    response.writeHead(redirects ? 302 : 200, { 'content-type': 'text/html', location: '/' })
    response.end('<h1>Welcome</h1>')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const address = server.address()
  if (typeof address !== 'object' || !address) throw new Error('it does not listen')
  const client = clientOf({ url: `http://127.0.0.1:${address.port}` })

  for (const asked of [client.whoAmI(), client.getRun('moved'), allOf(client.events())])
    expect(await failureOf(asked)).toMatchObject({ code: 'unexpected_answer' })
})

test('a client that is made or called wrongly says so before it sends anything', async () => {
  const wrong = [
    { url: 'ftp://example.com' },
    { url: 'http://ana@example.com' },
    { url: 'http://example.com/?a=1' },
    { url: 'example.com' },
    { url: 'http://example.com', retries: -1 },
    { url: 'http://example.com', timeoutMs: NaN },
  ]
  for (const options of wrong) expect(() => createClient(options)).toThrow(TypeError)
  const { proxy } = await behindProxy(service)
  const secret = 'a secret\nwith a line'
  const error = await failureOf(createClient({ url: proxy.url, token: secret }).whoAmI())
  expect(error).toBeInstanceOf(TypeError)
  expect(String(error)).not.toContain('secret\n')
  expect(proxy.accepted()).toBe(0)
})

test('a token may be asked for anew before each request', async () => {
  const tokens = ['not-known', service.token]
  const client = createClient({ url: service.url, token: async () => tokens.shift() ?? '' })
  expect(await failureOf(client.whoAmI())).toMatchObject({ code: 'unauthorized' })
  expect(await client.whoAmI()).toMatchObject({ role: 'admin' })
})
