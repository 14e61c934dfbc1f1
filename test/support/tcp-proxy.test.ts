import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { eventually } from './eventually.ts'
import { freshDatabase } from './fresh-database.ts'
import { pgFramer } from './pg-wire.ts'
import { startTcpProxy, upstreamOf } from './tcp-proxy.ts'

const databaseUrl = await freshDatabase()

/** A table of its own, a way to it around the proxy (`direct`), and one through it. */
const setup = async (options: postgres.Options<Record<string, never>> = {}) => {
  const proxy = await startTcpProxy(upstreamOf(databaseUrl))
  const direct = postgres(databaseUrl, { max: 1 })
  const sql = postgres(proxy.url(databaseUrl), { max: 1, backoff: false, ...options })
  onTestFinished(async () => {
    await proxy.close()
    await Promise.all([sql.end({ timeout: 0 }), direct.end({ timeout: 0 })])
  })
  const table = direct(`t_${randomUUID().slice(0, 8)}`)
  await direct`create table ${table} (n int primary key)`
  const rows = async () => (await direct`select n from ${table} order by n`).map((row) => row['n'])
  return { proxy, direct, sql, table, rows }
}

const message = (type: string, body: string | Buffer) => {
  const bytes = Buffer.from(body)
  const length = Buffer.alloc(4)
  length.writeInt32BE(bytes.length + 4)
  return Buffer.concat([Buffer.from(type), length, bytes])
}
const code = (number: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(number)
  return bytes
}

/** A server that does what it is told, a proxy, and a client's socket with what it got. */
const setupFake = async (serve: (socket: Socket) => void) => {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {})
    serve(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const proxy = await startTcpProxy({ host: '127.0.0.1', port })
  const client = connect({ host: '127.0.0.1', port: proxy.port, noDelay: true })
  const answers: Buffer[] = []
  client.on('data', (chunk) => answers.push(chunk))
  onTestFinished(async () => {
    client.destroy()
    await proxy.close()
    server.close()
  })
  return { proxy, client, answers }
}

describe('the framing of Postgres messages', () => {
  const messages = [
    message('', code(80877103)),
    message('', Buffer.concat([code(196608), Buffer.from('user\0me\0\0')])),
    message('p', 'secret\0'),
    message('P', 's1\0select 1\0\0\0'),
    message('B', '\0s1\0\0\0\0\0\0\0'),
    message('E', '\0\0\0\0\0'),
    message('S', ''),
    message('Q', 'select $1\0'),
  ]
  const types = ['', '', 'p', 'P', 'B', 'E', 'S', 'Q']

  test('finds the same messages however the stream is cut', () => {
    const stream = Buffer.concat(messages)
    for (let at = 0; at <= stream.length; at += 1) {
      const frame = pgFramer({ startup: true })
      const parts = [stream.subarray(0, at), stream.subarray(at)]
      const read = parts.flatMap((part) => frame(part))
      expect(
        read.map(({ type }) => type),
        `cut at ${at}`,
      ).toEqual(types)
      expect(read.map(({ bytes }) => bytes)).toEqual(messages)
    }
    const frame = pgFramer({ startup: true })
    const read = [...stream].flatMap((byte) => frame(Buffer.from([byte])))
    expect(read.map(({ bytes }) => bytes)).toEqual(messages)
  })

  test('refuses another protocol', () => {
    expect(() => pgFramer({ startup: true })(Buffer.from('GET / HTTP/1.1\r\n'))).toThrow('not the')
    expect(() => pgFramer({ startup: false })(Buffer.from('Z\0\0\0\x03'))).toThrow('not the')
  })

  test('survives the proxy when both sides send single bytes, and encryption is declined', async () => {
    const replies = Buffer.concat([message('R', code(0)), message('Z', 'I')])
    const received: Buffer[] = []
    const { client, answers } = await setupFake((socket) => {
      socket.on('data', (chunk) => received.push(chunk))
      for (const byte of replies) socket.write(Buffer.from([byte]))
    })

    for (const byte of Buffer.concat(messages)) client.write(Buffer.from([byte]))

    const onward = Buffer.concat(messages.slice(1))
    await eventually(() => Buffer.concat(received).length >= onward.length)
    await eventually(() => Buffer.concat(answers).length > replies.length)
    expect(Buffer.concat(received)).toEqual(onward)
    expect(Buffer.concat(answers).toSorted()).toEqual(
      Buffer.concat([replies, Buffer.from('N')]).toSorted(),
    )
  })
})

describe('a connection through the proxy', () => {
  test('carries large values both ways, encryption preferred or not', async () => {
    const { sql, proxy } = await setup({ ssl: 'prefer' })
    const text = 'é'.repeat(3_000_000)
    const [row] = await sql`select ${text}::text as text, length(${text}::text) as length`
    expect([row?.['text'] === text, row?.['length']]).toEqual([true, 3_000_000])
    const many = await sql`select repeat('x', 1000) as x from generate_series(1, 20000)`
    expect(many).toHaveLength(20_000)
    expect([proxy.open(), proxy.accepted()]).toEqual([1, 1])
  })

  test('is cut in the middle of a statement, and made anew for the next', async () => {
    const { proxy, direct, sql } = await setup()
    const sleeping = sql`select pg_sleep(60)`.catch((error: unknown) => error)
    await eventually(async () => {
      const active = await direct`select from pg_stat_activity where query like '%pg_sleep(60)%'
        and state = 'active' and pid <> pg_backend_pid()`
      return active.length === 1
    })

    proxy.cutAll()

    expect(await sleeping).toMatchObject({ code: 'CONNECTION_CLOSED' })
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
    expect(proxy.accepted()).toBe(2)
  })

  test('is refused while the proxy refuses', async () => {
    const { proxy, sql } = await setup()
    proxy.refuse(true)
    await expect(sql`select 1`).rejects.toMatchObject({ code: expect.stringMatching(/CON/) })
    expect([proxy.refused(), proxy.accepted()]).toEqual([1, 0])
    proxy.refuse(false)
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  test('carries nothing while paused, and everything once resumed', async () => {
    const { proxy, sql, table, rows } = await setup()
    await sql`select 1`

    proxy.pause()
    const insert = sql`insert into ${table} values (1)`.then(() => 'done')
    const waited = await Promise.race([insert, rows()])
    expect(waited).toEqual([])

    proxy.resume()
    expect(await insert).toBe('done')
    expect(await rows()).toEqual([1])
  })

  test('is slowed both ways, in order', async () => {
    const { proxy, sql } = await setup()
    await sql`select 1`
    proxy.delay(30)
    const start = performance.now()
    await sql`select 1 as n`
    // Timers of Node may fire up to a millisecond early.
    expect(performance.now() - start).toBeGreaterThan(58)
    proxy.delay(0)
    expect(await sql`select 2 as n`).toEqual([{ n: 2 }])
  })
})

describe('a dropped reply', () => {
  test('leaves a commit done and its client in doubt', async () => {
    const { proxy, sql, table, rows } = await setup()
    const drop = proxy.dropNextReplyMatching((query) => query.includes('insert into'))

    await expect(sql`insert into ${table} values (${1})`).rejects.toMatchObject({
      code: 'CONNECTION_CLOSED',
    })

    const [reply] = await drop.dropped
    expect(reply).toMatchObject({ tag: 'INSERT 0 1', failed: false, inTransaction: false })
    expect(await rows()).toEqual([1])
    await sql`insert into ${table} values (2)`
    expect([await rows(), drop.replies.length]).toEqual([[1, 2], 1])
  })

  test('is that of a simple query too, and of a statement that was prepared long ago', async () => {
    const { proxy, sql, table, rows } = await setup()
    const insert = (n: number) => sql`insert into ${table} values (${n})`
    await insert(1)
    const drop = proxy.dropNextReplyMatching((query) => query.includes('insert'), 2)
    await expect(insert(2)).rejects.toThrow('CONNECTION_CLOSED')
    const simple = sql`insert into ${table} values (3)`.simple()
    await expect(simple).rejects.toThrow('CONNECTION_CLOSED')
    expect((await drop.dropped).map(({ tag }) => tag)).toEqual(['INSERT 0 1', 'INSERT 0 1'])
    expect(await rows()).toEqual([1, 2, 3])
  })

  test('among pipelined statements is the right one; replies before it arrive', async () => {
    const { proxy, sql, table, rows } = await setup()
    const insert = (n: number) => sql`insert into ${table} values (${n}) returning n`
    await insert(0)
    let executed = 0
    const drop = proxy.dropNextReplyMatching(() => (executed += 1) === 7)

    const many = Array.from({ length: 20 }, (_, index) => insert(index + 1))
    const settled = await Promise.allSettled(many)

    await drop.dropped
    const fulfilled = settled.map(({ status }) => status === 'fulfilled')
    expect(fulfilled).toEqual(Array.from({ length: 20 }, (_, index) => index < 6))
    expect((await rows()).slice(0, 8)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  })

  test.each([0, 20])('takes no earlier reply along that waits %d ms', async (delayMs) => {
    const start = message('', Buffer.concat([code(196608), Buffer.from('user\0me\0\0')]))
    const queries = [1, 2, 3].map((n) => message('Q', `select ${n}\0`))
    const reply = Buffer.concat([message('C', 'SELECT 1\0'), message('Z', 'I')])
    const asked = Buffer.concat([start, ...queries])
    const { proxy, client, answers } = await setupFake((socket) => {
      let bytes = 0
      // All replies in one write, so that they come as one chunk.
      socket.on('data', (chunk) => {
        bytes += chunk.length
        if (bytes === asked.length) socket.write(Buffer.concat([message('Z', 'I'), reply, reply]))
      })
    })
    proxy.delay(delayMs)
    const drop = proxy.dropNextReplyMatching((query) => query === 'select 2')

    client.write(asked)
    await once(client, 'close')

    expect(Buffer.concat(answers)).toEqual(Buffer.concat([message('Z', 'I'), reply]))
    expect((await drop.dropped).map(({ query }) => query)).toEqual(['select 2'])
  })

  test('of a commit is not that of a statement inside a transaction, or of one that fails', async () => {
    const { proxy, sql, table, rows } = await setup()
    const commit = (n: number) => sql`select /* runlane.commit( */ 6 / ${n}::int as n`
    const drop = proxy.dropNextCommitReply(2)

    await expect(commit(0)).rejects.toMatchObject({ code: '22012' })
    const transaction = sql.begin(async (begun) => {
      await begun`insert into ${table} values (1)`
      expect(await begun`select /* runlane.commit( */ 1 as n`).toEqual([{ n: 1 }])
    })
    await expect(transaction).rejects.toThrow('CONNECTION_CLOSED')
    expect([await rows(), drop.replies.map(({ query }) => query)]).toEqual([[1], ['commit']])

    await expect(commit(3)).rejects.toThrow('CONNECTION_CLOSED')
    expect((await drop.dropped).map(({ tag }) => tag)).toEqual(['COMMIT', 'SELECT 1'])
    expect(await commit(2)).toEqual([{ n: 3 }])
  })

  test('that was given up is not awaited for ever', async () => {
    const { proxy, sql } = await setup()
    const drop = proxy.dropNextReplyMatching(() => true)
    drop.disarm()
    await expect(drop.dropped).rejects.toThrow('disarmed after 0 of 1')
    expect(await sql`select 1 as n`).toEqual([{ n: 1 }])
    const left = proxy.dropNextReplyMatching(() => true)
    await proxy.close()
    await expect(left.dropped).rejects.toThrow('disarmed')
  })
})
