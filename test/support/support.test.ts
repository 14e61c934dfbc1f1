import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { api } from './api.ts'
import { startEffectServer } from './effect-server.ts'
import { eventually } from './eventually.ts'
import { seeded } from './random.ts'
import { ADMIN_TOKEN, startService } from './service.ts'
import {
  collectUntil,
  followWithReconnects,
  readSse,
  type SseFrame,
  SseRefused,
  sseParser,
} from './sse.ts'

const serve = async (
  listener: (...call: Parameters<RequestListener>) => unknown,
): Promise<string> => {
  const server = createServer((request, response) => void listener(request, response))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const start = async () => {
  const server = await startEffectServer()
  onTestFinished(() => server.close())
  const post = async (body: unknown, headers = {}, signal?: AbortSignal) => {
    const request = {
      method: 'POST',
      headers,
      body: JSON.stringify(body),
      signal: signal ?? null,
    }
    const response = await fetch(`${server.url}/charge`, request)
    return { status: response.status, body: await response.json() }
  }
  return { server, post }
}

describe('the effect server', () => {
  test('records calls in order and answers as the body asks', async () => {
    const { server, post } = await start()

    const first = await post({ amount: 1 }, { 'Idempotency-Key': 'k1' })
    const second = await post(
      { reply: null, status: 503, delay_ms: 1 },
      { 'idempotency-key': 'k1' },
    )
    await post('text')

    expect(first).toEqual({ status: 200, body: { ok: true, n: 1 } })
    expect(second).toEqual({ status: 503, body: null })
    expect(server.calls.map(({ path, completed }) => [path, completed])).toEqual(
      Array.from({ length: 3 }, () => ['/charge', true]),
    )
    expect(server.callsByKey().get('k1')).toHaveLength(2)
    expect(server.callsByKey().get(null)?.[0]?.body).toBe('text')
  })

  test('finds calls of one lane that overlap, and only those', async () => {
    const { server, post } = await start()

    for (const lane of ['a', 'a', 'b']) await post({ lane })
    expect(server.overlaps()).toEqual([])

    const open = [post({ lane: 'a', hang: true })]
    await eventually(() => server.calls.length === 4)
    open.push(post({ lane: 'b', hang: true }))
    await eventually(() => server.calls.length === 5)
    await post({ lane: 'a' })
    await post({ lane: 'c' })
    server.release()
    await Promise.all(open)
    await post({ lane: 'b' })

    const pairs = server.overlaps().map((pair) => pair.map((call) => server.calls.indexOf(call)))
    expect(pairs).toEqual([[3, 5]])
  })

  test('tells a call whose caller went away from one that was answered', async () => {
    const { server, post } = await start()
    const leaving = new AbortController()

    const call = post({ lane: 'a', hang: true }, {}, leaving.signal).catch(() => 'left')
    await eventually(() => server.calls.length === 1)
    expect(server.calls[0]?.at_end).toBeNull()
    leaving.abort()

    expect(await call).toBe('left')
    await eventually(() => server.calls[0]?.at_end)
    expect(server.calls[0]?.completed).toBe(false)
    await post({ lane: 'a' })
    expect(server.overlaps()).toEqual([])
  })
})

describe('an event stream', () => {
  const bytes = Buffer.from(
    '\ufeff: heartbeat\n\nretry: 250\r\nid: 1\rdata: {"é":"日本🛤"}\n\n: note\nevent:bye\r\n' +
      'data: a\r\ndata:  b\r\n\r\n\n\ndata\nid\n\nid: 9\ndata: never closed\n',
  )
  const frames = [
    { comment: 'heartbeat' },
    { retry: 250, id: '1', data: '{"é":"日本🛤"}' },
    { comment: 'note', event: 'bye', data: 'a\n b' },
    { data: '', id: '' },
  ]

  test('gives the same frames however it is cut', () => {
    for (let at = 0; at <= bytes.length; at += 1) {
      const parse = sseParser()
      const read = [bytes.subarray(0, at), bytes.subarray(at)].flatMap((part) => parse(part))
      expect(read, `cut at ${at}`).toEqual(frames)
    }
    const parse = sseParser()
    expect([...bytes].flatMap((byte) => parse(Buffer.from([byte])))).toEqual(frames)
  })

  test('gives the same frames over a socket, cut at every byte', async () => {
    const url = await serve(async (request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
      const at = Number(request.url?.slice(1))
      response.write(bytes.subarray(0, at))
      await turn()
      response.end(bytes.subarray(at))
    })

    for (let at = 0; at <= bytes.length; at += 1) {
      const read: SseFrame[] = []
      for await (const frame of readSse({ url: `${url}/${at}` })) read.push(frame)
      expect(read, `cut at ${at}`).toEqual(frames)
    }
  })

  test('is collected up to the awaited frame, and fails by name when that does not come', async () => {
    const url = await serve((_request, response) => {
      response
        .writeHead(200, { 'content-type': 'text/event-stream' })
        .write('id: 1\n\nid: 2\n\nid: 3\n\n')
    })

    const stream = readSse({ url })
    expect(await collectUntil(stream, ({ id }) => id === '2')).toEqual([{ id: '1' }, { id: '2' }])
    await expect(collectUntil(stream, () => false, 50)).rejects.toThrow(/within 50 ms.*"id":"3"/s)
    expect(await stream.next()).toEqual({ done: true, value: undefined })
  })

  test('is left at once while a frame is awaited', async () => {
    const visits = { begun: 0, ended: 0 }
    const url = await serve((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
      visits.begun += 1
      response.once('close', () => (visits.ended += 1))
    })

    const stream = readSse({ url })
    const pending = stream.next()
    await eventually(() => visits.begun === 1)
    await stream.return?.()

    expect(await pending).toEqual({ done: true, value: undefined })
    await eventually(() => visits.ended === 1)
  })

  test('that is refused says why', async () => {
    const url = await serve((_request, response) => response.writeHead(401).end('no token'))
    await expect(readSse({ url }).next()).rejects.toEqual(new SseRefused(401, 'no token'))
  })

  test('is followed without a gap through random disconnections', async () => {
    const url = await serve((request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      const after = Number(request.headers['last-event-id'] ?? 0)
      for (let id = after + 1; id <= 100; id += 1) response.write(`: x\n\nid: ${id}\ndata: {}\n\n`)
    })

    const random = seeded(7)
    const last = '100'
    const until = ({ id }: SseFrame) => id === last
    const followed = await followWithReconnects({ url, token: 't', random, until })

    expect(followed.ids).toEqual(Array.from({ length: 100 }, (_, index) => `${index + 1}`))
    expect(followed.connections).toBeGreaterThan(10)
    const never = followWithReconnects({
      url,
      token: 't',
      random,
      until: () => false,
      timeoutMs: 50,
    })
    await expect(never).rejects.toThrow('seed 7')
  })
})

const entry = (lines: string): string => {
  const folder = mkdtempSync(join(tmpdir(), 'runlane-entry-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'main.mjs')
  writeFileSync(file, lines)
  return file
}

describe('a service process', () => {
  const SERVER = `import { createServer } from 'node:http';
    const server = createServer((request, response) => {
      response.setHeader('content-type', 'application/problem+json');
      response.end(JSON.stringify({ env: process.env, authorization: request.headers.authorization }));
    }).listen(Number(process.env.PORT), '127.0.0.1', () => {
      process.stdout.write('hello\\nrunlane list');
      setImmediate(() => console.log('ening on http://127.0.0.1:' + server.address().port + '/ (test)'));
    });
    process.once('SIGTERM', () => process.exit(7));`

  test('is started, frozen, thawed, killed and started again where it was', async () => {
    const service = await startService({ entry: entry(SERVER), env: { RUNLANE_LEASE: '1s' } })
    onTestFinished(() => void service.kill())
    const { body } = await api(service).get('/')
    expect(body.authorization).toBe(`Bearer ${ADMIN_TOKEN}`)
    expect(body.env).toMatchObject({ RUNLANE_LEASE: '1s', RUNLANE_DATA_DIR: service.dataDir })
    expect(Object.keys(body.env)).not.toContain('VITEST')

    service.freeze()
    const frozen = api(service).request('GET', '/', { signal: AbortSignal.timeout(100) })
    await expect(frozen).rejects.toThrow('timeout')
    service.thaw()
    expect((await api(service).get('/')).status).toBe(200)

    expect(await service.kill()).toEqual({ code: null, signal: 'SIGKILL' })
    const next = await service.restart({ env: { RUNLANE_RECOVERY: 'manual' } })
    onTestFinished(() => void next.kill())
    expect([next.url, next.dataDir]).toEqual([service.url, service.dataDir])
    expect((await api(next).get('/')).body.env).toMatchObject({
      RUNLANE_LEASE: '1s',
      RUNLANE_RECOVERY: 'manual',
    })
    next.freeze()
    expect(await next.stop()).toEqual({ code: 7, signal: null })
    expect(await next.exited).toEqual({ code: 7, signal: null })
  })

  test('that ends before it listens fails the start with what it said', async () => {
    const failing = entry(`console.error('bad RUNLANE_LEASE'); process.exitCode = 3;`)
    await expect(startService({ entry: failing })).rejects.toThrow(/\(3\)[^]*bad RUNLANE_LEASE/)
  })
})

const missing = () => Promise.reject(new Error('the 12th row is missing'))

describe('a condition', () => {
  test('is polled until it is true, through errors', async () => {
    let asked = 0
    const check = () => {
      asked += 1
      if (asked < 3) throw new Error('not yet')
      return asked > 4 && { asked }
    }
    expect(await eventually(check, { everyMs: 1 })).toEqual({ asked: 5 })
  })

  test('that does not come true fails with the last error', async () => {
    const failing = eventually(missing, { timeoutMs: 30, message: () => 'all rows' })
    await expect(failing).rejects.toThrow(/all rows did not .* 30 ms: the 12th row is missing/)
    const hanging = eventually(() => new Promise<boolean>(() => {}), { timeoutMs: 30 })
    await expect(hanging).rejects.toThrow('the check did not answer')
  })
})

const draw = (seed: number) => {
  const random = seeded(seed)
  const items = Array.from({ length: 50 }, (_, index) => index)
  const picked = items.map(() => random.pick(items))
  return { shuffled: random.shuffle(items), picked, chances: items.map(() => random.chance(0.5)) }
}

test('randomness is repeated by its seed', () => {
  expect(draw(1)).toEqual(draw(1))
  expect(draw(1)).not.toEqual(draw(2))
  expect(draw(3).shuffled.toSorted((a, b) => a - b)).toEqual(
    Array.from({ length: 50 }, (_, i) => i),
  )
  expect(new Set(draw(4).chances)).toEqual(new Set([true, false]))
})
