import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { CloudEvent, type CloudEventV1, HTTP } from 'cloudevents'
import { Webhook } from 'standardwebhooks'
import type { Json } from './api.ts'

/** `RUNLANE_WEBHOOK_SECRET` of services under test. */
export const WEBHOOK_SECRET = `whsec_${Buffer.from('a secret of webhooks under test!').toString('base64')}`

/**
 * A receiver of webhooks on a free port of 127.0.0.1. Each request is judged as it arrives by those who wrote the
 * standards: `standardwebhooks` verifies the signature over the raw body, `cloudevents` parses it.
 *
 * `answers` says what becomes of each path: the nth request to it gets the nth answer, all later ones the last. A path that
 * is not named gets 204.
 */
export const startReceiver = async (
  answers: Readonly<Record<string, readonly ReceiverAnswer[]>> = {},
): Promise<Receiver> => {
  const deliveries: Delivery[] = []
  const problems: string[] = []
  const counts = new Map<string, number>()
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const path = request.url ?? '/'
      const nth = counts.get(path) ?? 0
      counts.set(path, nth + 1)
      const body = Buffer.concat(parts).toString('utf8')
      try {
        deliveries.push({ path, at: performance.now(), ...judged(request.headers, body) })
      } catch (error) {
        problems.push(`${path}: ${String(error)}`)
      }
      const planned = answers[path] ?? []
      reply(response, planned[nth] ?? planned.at(-1) ?? 204)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    deliveries,
    problems,
    at: (path) => deliveries.filter((one) => one.path === path),
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

/** A status; `hang`: no answer at all. */
export type ReceiverAnswer =
  | number
  | 'hang'
  | {
      readonly status: number
      readonly headers?: Record<string, string>
      readonly afterMs?: number
    }

export type Delivery = {
  readonly path: string
  /** `performance.now()` of the test's process. */
  readonly at: number
  readonly headers: IncomingHttpHeaders
  /** As it came. */
  readonly body: string
  readonly event: CloudEventV1<Json>
}

export type Receiver = {
  /** Without a slash at the end. */
  readonly url: string
  readonly port: number
  /** In order of arrival; live. */
  readonly deliveries: readonly Delivery[]
  /** Requests that the judges refused, and why. */
  readonly problems: readonly string[]
  at(path: string): Delivery[]
  close(): Promise<void>
}

const judged = (headers: IncomingHttpHeaders, body: string) => {
  new Webhook(WEBHOOK_SECRET).verify(body, headers as Record<string, string>)
  const event = HTTP.toEvent<Json>({ headers, body })
  // Both throw what does not fit: reading it, and making one of what was read.
  if (Array.isArray(event) || !new CloudEvent(event).validate()) throw new Error('not one event')
  if (headers['webhook-id'] !== event.id) throw new Error('another id in its header')
  return { headers, body, event: event as CloudEventV1<Json> }
}

const reply = (response: ServerResponse, answer: ReceiverAnswer): void => {
  if (answer === 'hang') return
  const {
    status,
    headers = {},
    afterMs = 0,
  } = typeof answer === 'number' ? { status: answer } : answer
  setTimeout(() => response.writeHead(status, headers).end(), afterMs)
}
