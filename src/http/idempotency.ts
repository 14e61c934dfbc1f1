import type { Context } from 'hono'
import { hashJson } from '../json.ts'
import { invalid } from './body.ts'

const KEY_LENGTH_MAX = 255

/**
 * The Idempotency-Key of a request and what it asks for. A key counts per caller and path, for as long as the run exists;
 * requests are the same by meaning, not by spelling. @throws Refusal validation_error
 */
export function requestKey(c: Context): string | undefined {
  const key = c.req.header('idempotency-key')
  if (key === undefined) return undefined
  if (key === '' || key.length > KEY_LENGTH_MAX)
    throw invalid([
      { path: 'Idempotency-Key', message: `must have 1 to ${KEY_LENGTH_MAX} characters` },
    ])
  return `${c.req.path}:${key}`
}

export function commandKey(c: Context, body: object): { text: string; hash: string } | undefined {
  const text = requestKey(c)
  return text === undefined ? undefined : { text, hash: hashJson(withoutNulls(body)) }
}

/** A field that is null means the same as one that is left out; what is inside `input` and `metadata` is not ours. */
export function withoutNulls(body: unknown): unknown {
  if (Array.isArray(body)) return body.map(withoutNulls)
  return Object.fromEntries(Object.entries(body as object).filter(([, value]) => value !== null))
}
