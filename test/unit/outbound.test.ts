import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { Outbound, type Resolver } from '../../src/agents/outbound.ts'

const PRIVATE = 'is a private address'

/** Every way to write an address that is inside somebody's network. */
const PRIVATE_URLS = [
  'http://127.0.0.1/',
  'http://0.0.0.0/',
  'http://10.1.2.3/',
  'http://100.64.0.1/',
  'http://100.127.255.255/',
  'http://169.254.169.254/latest/meta-data',
  'http://172.16.0.1/',
  'http://172.31.255.255/',
  'http://192.168.1.1/',
  'http://192.0.0.1/',
  'http://198.18.0.1/',
  'http://224.0.0.1/',
  'http://255.255.255.255/',
  // The same in other notations.
  'http://2130706433/',
  'http://0x7f000001/',
  'http://0177.0.0.1/',
  'http://0x7f.1/',
  'http://127.1/',
  'http://0/',
  'http://127.0.0.1./',
  'http://%31%32%37.0.0.1/',
  'http://①②⑦.⓪.⓪.①/',
  // IPv6, also around an IPv4 address.
  'http://[::1]/',
  'http://[::]/',
  'http://[0:0:0:0:0:0:0:1]/',
  'http://[fc00::1]/',
  'http://[fd12:3456::1]/',
  'http://[fe80::1]/',
  'http://[fec0::1]/',
  'http://[ff02::1]/',
  'http://[::ffff:127.0.0.1]/',
  'http://[::ffff:7f00:1]/',
  'http://[::ffff:a9fe:a9fe]/',
  'http://[::127.0.0.1]/',
  'http://[::ffff:0:127.0.0.1]/',
  'http://[64:ff9b::127.0.0.1]/',
  'http://[64:ff9b:1::a00:1]/',
  'http://[2002:7f00:1::]/',
  'http://[2001:0:7f00:1::]/',
  // Names that mean this machine everywhere.
  'http://localhost/',
  'http://LOCALHOST:8080/',
  'http://localhost./',
  'http://a.localhost/',
]

describe('refusal', () => {
  const strict = outbound([])

  test.each(PRIVATE_URLS)('%s is refused, and the message says how to allow it', (url) => {
    expect(strict.refusal(url)).toContain(PRIVATE)
    expect(strict.refusal(url)).toContain('RUNLANE_WEBHOOK_ALLOW')
  })

  test.each([
    'http://example.com/',
    'https://example.com:8443/a?b=c',
    'http://1.1.1.1/',
    'http://172.32.0.1/',
    'http://100.128.0.1/',
    'http://[2606:4700::1111]/',
    'http://[2001:4860:4860::8888]/',
    'http://[::ffff:1.1.1.1]/',
    'http://notlocalhost/',
    'http://127.0.0.1.example.com/',
  ])('%s may be called', (url) => {
    expect(strict.refusal(url)).toBeUndefined()
  })

  test.each(['ftp://example.com/', 'file:///etc/passwd', 'data:,x', 'example.com', '', 'http://'])(
    '%j is no URL of the web',
    (url) => {
      expect(strict.refusal(url)).toBe('is not an http or https URL')
    },
  )

  test('a URL with credentials is refused: they would be shown', () => {
    expect(strict.refusal('http://user:secret@example.com/')).toBe('must not carry credentials')
    expect(strict.refusal('http://user@example.com/')).toBe('must not carry credentials')
  })

  test('what the list names is allowed, and nothing beside it', () => {
    const some = outbound(['internal.corp', 'localhost', '10.1.0.0/16', '192.168.0.7', 'fd00::/8'])
    for (const url of [
      'http://localhost/',
      'http://LocalHost.:80/',
      'http://10.1.255.1/',
      'http://192.168.0.7/',
      'http://[::ffff:192.168.0.7]/',
      'http://[fd00::1]/',
    ])
      expect(some.refusal(url), url).toBeUndefined()
    for (const url of [
      'http://a.localhost/',
      'http://127.0.0.1/',
      'http://10.2.0.1/',
      'http://192.168.0.8/',
      'http://[fc00::1]/',
    ])
      expect(some.refusal(url), url).toContain(PRIVATE)
  })
})

describe('at connect time', () => {
  test.each([
    '127.0.0.1',
    '10.0.0.1',
    '169.254.169.254',
    '0.0.0.0',
    '::1',
    '::ffff:127.0.0.1',
    'fe80::1',
    'fe80::1%lo',
    'fd00::1',
  ])('a name that resolves to %s is refused', async (address) => {
    const { calls, url } = await listen()
    const strict = outbound(
      [],
      resolving(() => [address]),
    )
    const wanted = 'inside.test resolves to a private address; allow it in RUNLANE_WEBHOOK_ALLOW'

    expect(strict.refusal(named(url))).toBeUndefined()
    await expect(post(strict, named(url))).rejects.toThrow(wanted)
    await expect(strict.fetch(named(url), { method: 'POST' })).rejects.toThrow(wanted)
    expect(calls).toEqual([])
  })

  test('a name that resolves to something else by then is refused then', async () => {
    const { calls, url } = await listen()
    // 127.0.0.1 stands for an address in the public, 127.0.0.2 for one inside.
    const answers = [['127.0.0.1'], ['127.0.0.2']]
    const some = outbound(
      ['127.0.0.1'],
      resolving(() => answers.shift() ?? []),
    )

    await expect(post(some, named(url))).resolves.toEqual({ ok: true })
    await expect(post(some, named(url))).rejects.toThrow('resolves to a private address')
    expect(calls).toHaveLength(1)
    expect(answers).toEqual([])
  })

  test('the address that was checked is the one that is called: a name is resolved once', async () => {
    const { url } = await listen()
    let asked = 0
    const some = outbound(
      ['127.0.0.1'],
      resolving(() => [(asked += 1) === 1 ? '127.0.0.1' : '127.0.0.2']),
    )

    await expect(post(some, named(url))).resolves.toEqual({ ok: true })
    expect(asked).toBe(1)
  })

  test('of several addresses only those outside are called', async () => {
    const { calls, url } = await listen()
    const some = outbound(
      ['127.0.0.1'],
      resolving(() => ['::1', '127.0.0.2', '127.0.0.1']),
    )

    await expect(post(some, named(url))).resolves.toEqual({ ok: true })
    expect(calls).toEqual(['127.0.0.1'])
  })

  test.each([
    ['its name', 'inside.test'],
    ['its address', '127.0.0.1'],
    ['its network', '127.0.0.0/8'],
  ])('a private host may be called when the list has %s', async (_what, entry) => {
    const { url } = await listen()
    const some = outbound(
      [entry],
      resolving(() => ['127.0.0.1']),
    )

    await expect(post(some, named(url))).resolves.toEqual({ ok: true })
    const dotted = named(url).replace('inside.test', 'Inside.Test.')
    await expect(post(some, dotted)).resolves.toEqual({ ok: true })
  })

  test('an address in the URL is checked as well, since it is never looked up', async () => {
    const { calls, url } = await listen()
    const strict = outbound([])

    await expect(post(strict, url)).rejects.toThrow(PRIVATE)
    await expect(strict.fetch(url)).rejects.toThrow(PRIVATE)
    await expect(strict.fetch(new URL(url))).rejects.toThrow(PRIVATE)
    await expect(strict.fetch(new Request(url))).rejects.toThrow(PRIVATE)
    expect(calls).toEqual([])
  })

  test('a redirect is never followed', async () => {
    const inside = await listen()
    const { url } = await listen((response) =>
      response.writeHead(302, { location: inside.url }).end(),
    )
    const some = outbound(['127.0.0.1'])

    await expect(post(some, url)).rejects.toThrow(`${url} answered 302`)
    await expect(some.fetch(url)).rejects.toThrow(/redirect/)
    expect(inside.calls).toEqual([])
  })
})

describe('what went wrong is said in words', () => {
  test('by fetch, which hides it in a cause', async () => {
    const some = outbound(
      ['inside.test'],
      resolving(() => ['127.0.0.1']),
    )
    await expect(some.fetch('http://inside.test:2/')).rejects.toThrow(/ECONNREFUSED 127\.0\.0\.1:2/)
  })

  test('for a name with several addresses of which none answers', async () => {
    const some = outbound(
      ['inside.test'],
      resolving(() => ['127.0.0.1', '127.0.0.1']),
    )
    await expect(post(some, 'http://inside.test:2/')).rejects.toThrow(/ECONNREFUSED/)
  })

  test('for a name that does not exist', async () => {
    const none: Resolver = (name, _options, callback) =>
      callback(new Error(`getaddrinfo ENOTFOUND ${name}`), [])
    const some = outbound([], none)
    await expect(post(some, 'http://inside.test/')).rejects.toThrow('ENOTFOUND inside.test')
  })

  test('without the query of the URL, which may hold a key', async () => {
    const { url } = await listen((response) => response.writeHead(403).end())
    const some = outbound(['127.0.0.1'])
    const failed = await post(some, `${url}find?key=s3cr3t#s3cr3t`).catch(String)
    expect(failed).toBe(`Error: ${url}find answered 403`)
    const refused = await post(outbound([]), `${url}find?key=s3cr3t`).catch(String)
    expect(refused).toContain(`${url}find is a private address`)
  })

  test('for an answer that is JSON but cannot be stored', async () => {
    const { url } = await listen((response) => response.end(JSON.stringify({ a: ['x\0'] })))
    const some = outbound(['127.0.0.1'])
    await expect(post(some, url)).rejects.toThrow('its answer.a[0] contains a NUL character')
  })
})

const servers: Server[] = []
afterAll(() => {
  for (const server of servers) server.close().closeAllConnections()
})

type Answer = (response: ServerResponse) => void

/** A server that closes each connection, so that every request has to connect; `calls` has the addresses called. */
async function listen(answer: Answer = (response) => response.end('{"ok":true}')) {
  const calls: string[] = []
  const server = createServer((request, response) => {
    calls.push(request.socket.localAddress ?? '')
    response.setHeader('connection', 'close')
    answer(response)
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { calls, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` }
}

function outbound(allow: readonly string[], resolve?: Resolver): Outbound {
  const made = new Outbound(allow, resolve)
  onCleanUp(() => made.close())
  return made
}

function onCleanUp(work: () => Promise<void>): void {
  if (expect.getState().currentTestName === undefined) afterAll(work)
  else onTestFinished(work)
}

function resolving(find: () => readonly string[]): Resolver {
  return (_name, _options, callback) =>
    callback(
      null,
      find().map((address) => ({ address, family: address.includes(':') ? 6 : 4 })),
    )
}

const named = (url: string): string => url.replace('127.0.0.1', 'inside.test')

const post = (from: Outbound, url: string) =>
  from.post(url, {}, { headers: {}, signal: AbortSignal.timeout(5_000) })
