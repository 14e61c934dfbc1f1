import { createHmac } from 'node:crypto'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CloudEvent, HTTP } from 'cloudevents'
import { RunlaneError, verifyWebhook } from 'runlane/client'
import { Webhook } from 'standardwebhooks'
import { describe, expect, onTestFinished, test } from 'vitest'
import { seeded } from '../support/random.ts'

const secretOf = (text: string): string =>
  `whsec_${Buffer.from(text.padEnd(32, '.')).toString('base64')}`
const SECRET = secretOf('one')
const OTHER = secretOf('other')
const EVENT = {
  ...{ specversion: '1.0', id: 'evt_17', source: '/runs/run_1', type: 'runlane.run.completed' },
  ...{ time: '2026-11-21T10:00:00.000Z', data: { run_id: 'run_1', text: 'ü€😀' } },
}

const signed = (
  body: string,
  {
    secret = SECRET,
    id = 'evt_17',
    at = new Date(),
  }: { secret?: string; id?: string; at?: Date } = {},
) => ({
  'webhook-id': id,
  'webhook-timestamp': String(Math.floor(at.getTime() / 1000)),
  'webhook-signature': new Webhook(secret).sign(id, at, body),
})

const refusalOf = (call: () => unknown): unknown => {
  try {
    return call()
  } catch (error) {
    return error
  }
}
const expectRefused = (call: () => unknown, detail: RegExp): void => {
  const error = refusalOf(call)
  expect(error).toBeInstanceOf(RunlaneError)
  expect(error).toMatchObject({ code: 'webhook_invalid', detail: expect.stringMatching(detail) })
}

const BODY = JSON.stringify(EVENT)

describe('a webhook that is signed with the secret', () => {
  test('is answered as its event, however headers and body are given', () => {
    const headers = signed(BODY)
    const upper = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name.toUpperCase(), value]),
    )
    const lists = { ...headers, 'webhook-signature': [headers['webhook-signature']] }
    for (const given of [headers, upper, lists, new Headers(headers)])
      expect(verifyWebhook(given, BODY, SECRET)).toEqual(EVENT)
    const bytes = new TextEncoder().encode(BODY)
    for (const body of [Buffer.from(BODY), bytes, bytes.buffer])
      expect(verifyWebhook(headers, body, SECRET)).toEqual(EVENT)
  })

  test('is an event as the SDK of CloudEvents writes and reads it', () => {
    const { headers: _mode, body } = HTTP.structured(new CloudEvent(EVENT))
    const text = String(body)
    const event = verifyWebhook(signed(text), text, SECRET)
    expect(event).toMatchObject(EVENT)
    expect(new CloudEvent(event).validate()).toBe(true)
  })

  test('passes by any of several secrets, and any of several signatures', () => {
    const headers = signed(BODY)
    expect(verifyWebhook(headers, BODY, [OTHER, SECRET])).toEqual(EVENT)
    const both = [signed(BODY, { secret: OTHER }), headers]
    const signature = ['v1a,abc', ...both.map((one) => one['webhook-signature'])].join(' ')
    expect(verifyWebhook({ ...headers, 'webhook-signature': signature }, BODY, SECRET)).toEqual(
      EVENT,
    )
  })

  test('is one over HTTP as a server receives it', async () => {
    const received = Promise.withResolvers<{ headers: IncomingHttpHeaders; body: Buffer }>()
    const server = createServer((request, response) => {
      const parts: Buffer[] = []
      request
        .on('data', (part: Buffer) => parts.push(part))
        .on('end', () => {
          received.resolve({ headers: request.headers, body: Buffer.concat(parts) })
          response.end()
        })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const headers = { ...signed(BODY), 'content-type': 'application/cloudevents+json' }
    await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', headers, body: BODY })

    const { headers: came, body } = await received.promise
    expect(verifyWebhook(came, body, SECRET)).toEqual(EVENT)
  })
})

describe('a webhook is refused', () => {
  test('when it is signed with another secret, or by another scheme', () => {
    expectRefused(() => verifyWebhook(signed(BODY), BODY, OTHER), /signature/)
    const headers = signed(BODY)
    for (const signature of [
      '',
      'v1',
      'v1,',
      'v1,!',
      headers['webhook-signature'].replace('v1', 'v2'),
    ])
      expectRefused(
        () => verifyWebhook({ ...headers, 'webhook-signature': signature }, BODY, SECRET),
        /signature/,
      )
    // The key is what the base64 stands for, not its text.
    const text = `evt_17.${headers['webhook-timestamp']}.${BODY}`
    const wrong = createHmac('sha256', SECRET).update(text).digest('base64')
    const forged = { ...headers, 'webhook-signature': `v1,${wrong}` }
    expectRefused(() => verifyWebhook(forged, BODY, SECRET), /signature/)
  })

  test('when anything of it was changed', () => {
    const random = seeded(7)
    const headers = signed(BODY)
    for (let round = 0; round < 300; round += 1) {
      const bytes = Buffer.from(BODY)
      const at = random.int(bytes.length)
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.int(8))
      expectRefused(() => verifyWebhook(headers, bytes, SECRET), /signature|UTF-8/)
    }
    expectRefused(() => verifyWebhook({ ...headers, 'webhook-id': 'evt_18' }, BODY, SECRET), /sig/)
    const later = {
      ...headers,
      'webhook-timestamp': String(Number(headers['webhook-timestamp']) + 1),
    }
    expectRefused(() => verifyWebhook(later, BODY, SECRET), /signature/)
    expectRefused(() => verifyWebhook(headers, `${BODY} `, SECRET), /signature/)
    expectRefused(() => verifyWebhook(headers, `\uFEFF${BODY}`, SECRET), /signature/)
    expectRefused(() => verifyWebhook(headers, Buffer.from(`\uFEFF${BODY}`), SECRET), /signature/)
  })

  test('when its bytes only look like what was signed', () => {
    const body = JSON.stringify({ ...EVENT, data: '\uFFFD' })
    const at = Buffer.from(body).indexOf(Buffer.from('\uFFFD'))
    const bytes = Buffer.from(body)
    const other = Buffer.concat([
      bytes.subarray(0, at),
      Buffer.from([0xff]),
      bytes.subarray(at + 3),
    ])
    expect(verifyWebhook(signed(body), bytes, SECRET)).toMatchObject({ data: '\uFFFD' })
    expectRefused(() => verifyWebhook(signed(body), other, SECRET), /UTF-8/)
  })

  test('when it is more than five minutes old or ahead', () => {
    const at = (seconds: number): Date => new Date(Date.now() + seconds * 1000)
    for (const near of [-290, 290]) {
      const headers = signed(BODY, { at: at(near) })
      expect(verifyWebhook(headers, BODY, SECRET)).toEqual(EVENT)
    }
    expectRefused(() => verifyWebhook(signed(BODY, { at: at(-310) }), BODY, SECRET), /old/)
    expectRefused(() => verifyWebhook(signed(BODY, { at: at(310) }), BODY, SECRET), /new/)
    const garbage = { ...signed(BODY), 'webhook-timestamp': 'now' }
    expectRefused(() => verifyWebhook(garbage, BODY, SECRET), /\S/)
  })

  test('when a header is missing, and says which', () => {
    for (const name of ['webhook-id', 'webhook-timestamp', 'webhook-signature'] as const) {
      const { [name]: _left, ...rest } = signed(BODY)
      expectRefused(() => verifyWebhook(rest, BODY, SECRET), new RegExp(`${name} is missing`))
      expectRefused(() => verifyWebhook(new Headers(rest), BODY, SECRET), new RegExp(name))
    }
  })

  test('when it is signed, but no CloudEvent', () => {
    const bodies = ['', 'null', '[]', '7', '"x"', '{}', '{', JSON.stringify({ ...EVENT, id: 7 })]
    for (const body of [...bodies, JSON.stringify({ ...EVENT, specversion: '0.3' })])
      expectRefused(() => verifyWebhook(signed(body), body, SECRET), /JSON|CloudEvent/)
  })
})

test('mistakes of the receiver are errors of their own, and never quote the secret', () => {
  const headers = signed(BODY)
  const parsed = EVENT as unknown as string
  expect(() => verifyWebhook(headers, parsed, SECRET)).toThrow(/bytes or text, not parsed/)
  expect(() => verifyWebhook(headers, BODY, [])).toThrow(TypeError)
  for (const bad of ['', 'whsec_', 'whsec_not base64!']) {
    const error = refusalOf(() => verifyWebhook(headers, BODY, bad))
    expect(error).toBeInstanceOf(TypeError)
    expect(String(error)).not.toContain('not base64')
  }
})
