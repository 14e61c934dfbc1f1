import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/**
 * The outside world for agents: an HTTP server on a free port of 127.0.0.1 that `http` steps and
 * declared tools POST to. It records each call when its body is complete, so a test can prove what
 * happened, how often and at the same time as what.
 *
 * A call's body may steer the answer: `delay_ms`, `status` (default 200), `reply` (any JSON; default
 * `{ ok: true, n: <number of this call> }`), `hang: true` (no answer until `release()`), and `lane`
 * (a string that `overlaps()` groups by).
 */
export const startEffectServer = async (): Promise<EffectServer> => {
  const calls: EffectCall[] = []
  const hung = new Set<() => void>()
  const timers = new Set<NodeJS.Timeout>()

  const server = createServer((request, response) => {
    const take = (body: unknown): void => {
      const n = record(calls, request, response, body)
      schedule(steering(body), () => send(response, steering(body), n), { hung, timers })
    }
    // A caller that dies in the middle of its request has called nobody.
    receive(request).then(take, () => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    callsByKey: () => Map.groupBy(calls, (call) => call.idempotencyKey),
    overlaps: () => overlapsOf(calls),
    release: () => {
      for (const answer of hung) answer()
      hung.clear()
    },
    close: async () => {
      for (const timer of timers) clearTimeout(timer)
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

export type EffectServer = {
  /** `http://127.0.0.1:<port>`, without a slash at the end; every path and method is answered. */
  readonly url: string
  /** In order of arrival; live. */
  readonly calls: readonly EffectCall[]
  /** Calls in order of arrival; those without a key are under `null`. */
  callsByKey(): Map<string | null, EffectCall[]>
  /** The pairs of calls of one lane that ran at the same time, earlier one first. */
  overlaps(): [EffectCall, EffectCall][]
  /** Answers every call that hangs now. */
  release(): void
  /** Cuts calls that are still open. */
  close(): Promise<void>
}

/** Times are `performance.now()` of the test's process, in milliseconds. */
export type EffectCall = {
  readonly at_start: number
  /** The answer was sent or the caller went away; `null` while the call is open. */
  at_end: number | null
  readonly path: string
  readonly idempotencyKey: string | null
  /** The parsed JSON, or the text where it is not JSON. */
  readonly body: unknown
  /** The whole answer was handed to the network. False when the caller went away before. */
  completed: boolean
}

type Steering = {
  readonly delay_ms?: number
  readonly hang?: boolean
  readonly lane?: string
  readonly reply?: unknown
  readonly status?: number
}

const receive = async (request: IncomingMessage): Promise<unknown> => {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const text = Buffer.concat(chunks).toString('utf8')
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

const record = (
  calls: EffectCall[],
  request: IncomingMessage,
  response: ServerResponse,
  body: unknown,
): number => {
  const call: EffectCall = {
    at_start: performance.now(),
    at_end: null,
    path: request.url ?? '/',
    idempotencyKey: request.headersDistinct['idempotency-key']?.[0] ?? null,
    body,
    completed: false,
  }
  const end = (): void => {
    if (call.at_end !== null) return
    call.at_end = performance.now()
    call.completed = response.writableFinished
  }
  // The socket's own events come before the response's `close`, which waits for the end of the event
  // loop's turn: a call that follows an aborted one at once must not seem to overlap it.
  const { socket } = request
  for (const event of ['end', 'error', 'close']) socket.once(event, end)
  response.once('finish', end)
  response.once('close', () => {
    end()
    for (const event of ['end', 'error', 'close']) socket.off(event, end)
  })
  return calls.push(call)
}

const schedule = (
  { hang, delay_ms }: Steering,
  answer: () => void,
  { hung, timers }: { hung: Set<() => void>; timers: Set<NodeJS.Timeout> },
): void => {
  if (hang === true) {
    hung.add(answer)
    return
  }
  if (delay_ms === undefined || delay_ms <= 0) {
    answer()
    return
  }
  const timer = setTimeout(() => {
    timers.delete(timer)
    answer()
  }, delay_ms)
  timers.add(timer)
}

const send = (response: ServerResponse, wanted: Steering, n: number): void => {
  const reply = wanted.reply === undefined ? { ok: true, n } : wanted.reply
  response.writeHead(wanted.status ?? 200, { 'content-type': 'application/json' })
  response.end(JSON.stringify(reply))
}

const steering = (body: unknown): Steering =>
  typeof body === 'object' && body !== null && !Array.isArray(body) ? body : {}

const overlapsOf = (calls: readonly EffectCall[]): [EffectCall, EffectCall][] => {
  const pairs: [EffectCall, EffectCall][] = []
  const lanes = Map.groupBy(calls, (call) => steering(call.body).lane)
  for (const [lane, inLane] of lanes) {
    if (lane === undefined) continue
    for (const [index, first] of inLane.entries()) {
      // Calls are in order of their start, so only the end of the first decides.
      const end = first.at_end ?? Number.POSITIVE_INFINITY
      for (const second of inLane.slice(index + 1)) {
        if (second.at_start < end) pairs.push([first, second])
      }
    }
  }
  return pairs
}
