import { Webhook } from 'standardwebhooks'
import { RunlaneError } from './errors.ts'

/** The body of a webhook: a CloudEvent (1.0) in its JSON format. */
export interface WebhookEvent<T = unknown> {
  readonly specversion: '1.0'
  /** The same for every delivery of one notice: keep the ids that you have dealt with, deliveries may be repeated. */
  readonly id: string
  readonly source: string
  readonly type: string
  readonly subject?: string
  /** RFC 3339. */
  readonly time?: string
  readonly datacontenttype?: string
  readonly data?: T
  /** Extensions. */
  readonly [attribute: string]: unknown
}

/** Headers of a request as frameworks have them: a `Headers`, or an object as Node's `request.headers`. */
export type WebhookHeaders =
  | { get(name: string): string | null }
  | Readonly<Record<string, string | readonly string[] | undefined>>

const NEEDED = ['webhook-id', 'webhook-timestamp', 'webhook-signature'] as const

/**
 * Proves that a webhook comes from your service and was not changed, and answers what it says (Standard Webhooks).
 *
 * Signatures are compared in constant time. The timestamp may be five minutes off, either way: more is refused, so that a
 * captured delivery cannot be sent again later. Within those minutes it can: deal with each `id` once.
 *
 * @param headers those of the request; names in any case.
 * @param body exactly the bytes that came, as bytes or as text. Not the parsed object: its text is not what was signed.
 * @param secret `whsec_<base64>`, as in `RUNLANE_WEBHOOK_SECRET`. While you change it, the old and the new one: one of
 *   them is enough, as is one of several signatures in the header.
 * @throws {RunlaneError} `webhook_invalid`, whose `detail` says why. Answer 400 and do nothing else.
 * @throws {TypeError} for a body that is neither bytes nor text, and for a secret that is none or has a bad form: these
 *   are mistakes of the receiver.
 */
export function verifyWebhook<T = unknown>(
  headers: WebhookHeaders,
  body: string | Uint8Array | ArrayBuffer,
  secret: string | readonly string[],
): WebhookEvent<T> {
  const keys = keysOf(secret)
  const signed = signedHeaders(headers)
  const text = textOf(body)
  let refusal: unknown
  for (const key of keys) {
    try {
      key.verify(text, signed, { jsonParse: false })
      return cloudEvent(text) as WebhookEvent<T>
    } catch (error) {
      if (error instanceof RunlaneError) throw error
      refusal = error
    }
  }
  throw invalid(refusal instanceof Error ? refusal.message : 'no signature fits', refusal)
}

function keysOf(secret: string | readonly string[]): Webhook[] {
  const secrets = typeof secret === 'string' ? [secret] : secret
  if (secrets.length === 0) throw new TypeError('verifyWebhook needs a secret')
  return secrets.map((one) => {
    try {
      return new Webhook(one)
    } catch {
      // Without its cause, whose message may quote the secret.
      throw new TypeError('a webhook secret must be whsec_<base64>')
    }
  })
}

function signedHeaders(headers: WebhookHeaders): Record<string, string> {
  const found = NEEDED.map((name) => [name, headerOf(headers, name)] as const)
  const missing = found.flatMap(([name, value]) => (value === undefined ? [name] : []))
  if (missing.length > 0) throw invalid(`${missing.join(', ')} is missing`)
  return Object.fromEntries(found as [string, string][])
}

/** A header given several times counts as its values in one list, as HTTP has it; signatures are parted by spaces. */
function headerOf(headers: WebhookHeaders, name: string): string | undefined {
  if (typeof headers.get === 'function') return headers.get(name) || undefined
  const entry = Object.entries(headers).find(([key]) => key.toLowerCase() === name)
  const value: unknown = entry?.[1]
  if (Array.isArray(value)) return value.join(' ') || undefined
  return typeof value === 'string' && value !== '' ? value : undefined
}

function textOf(body: unknown): string {
  if (typeof body === 'string') return body
  if (!(body instanceof Uint8Array || body instanceof ArrayBuffer))
    throw new TypeError('verifyWebhook needs the body as it came, as bytes or text, not parsed')
  try {
    // Lossless, or not at all: what is verified must be what was sent.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body)
  } catch (cause) {
    throw invalid('the body is not UTF-8', cause)
  }
}

function cloudEvent(text: string): WebhookEvent {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw invalid('the body is not JSON', cause)
  }
  const event = value as WebhookEvent | null
  const isEvent =
    typeof event === 'object' &&
    event?.specversion === '1.0' &&
    [event.id, event.source, event.type].every((one) => typeof one === 'string' && one !== '')
  if (!isEvent) throw invalid('the body is not a CloudEvent 1.0')
  return event
}

const invalid = (detail: string, cause?: unknown): RunlaneError =>
  new RunlaneError({ code: 'webhook_invalid', detail: `webhook refused: ${detail}`, cause })
