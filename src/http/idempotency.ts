import type { Context } from 'hono'
import { Refusal } from '../errors.ts'
import { hashJson } from '../json.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import type { Sql } from '../store/database.ts'
import {
  findKeyedRuns,
  findRequest,
  type KeptRequest,
  type RequestKey,
} from '../store/request-keys.ts'
import { invalid } from './body.ts'

const KEY_LENGTH_MAX = 255

/**
 * The Idempotency-Key of a request and what it asks for. A key counts per caller and path, for as long as the run exists, or
 * thirty days where an agent or a token is made or deleted or many runs are acted on; requests are the same by meaning, not by spelling. @throws Refusal validation_error
 */
function requestKey(c: Context): string | undefined {
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

/** Of a request that makes something other than one run or one command. @throws Refusal validation_error */
export function makingKey(c: Context, { name }: Caller, body: object): RequestKey | undefined {
  const key = commandKey(c, body)
  return key && { ...key, requested_by: name }
}

/**
 * Makes something (or deletes it: see `onceDeleted`), unless this caller has done so before under the same key; `make` answers
 * `repeated` when the same request came at the same time and was first. @throws Refusal idempotency_conflict
 */
export async function onceMade<A>(
  reads: Sql,
  key: RequestKey | undefined,
  { make, again, named = true }: Making<A>,
): Promise<A> {
  const targetOf = (given: RequestKey, kept: KeptRequest) => sameTarget(given, kept, named)
  const earlier = key && (await findRequest(reads, key))
  if (key && earlier) return again(targetOf(key, earlier))
  const made = await make()
  if (made !== 'repeated') return made
  const first = key && (await findRequest(reads, key))
  if (!key || !first) throw new Error('a repeated request has no first one')
  return again(targetOf(key, first))
}

/**
 * The same for what is deleted: 204, whether by this request or by an earlier one under its key. `remove` answers false when it
 * is not there, and then `missing` says so. @throws Refusal idempotency_conflict
 */
export async function onceDeleted(
  reads: Sql,
  key: RequestKey | undefined,
  remove: () => Promise<boolean | 'repeated'>,
  missing: () => Refusal,
) {
  const deleted = { status: 204 as const }
  return onceMade<typeof deleted & { headers?: Record<string, string> }>(reads, key, {
    named: false,
    make: async () => {
      const done = await remove()
      if (done === false) throw missing()
      return done === 'repeated' ? done : deleted
    },
    again: async () => ({ ...deleted, headers: replayedHeader(true) }),
  })
}

interface Making<A> {
  make: () => Promise<A | 'repeated'>
  again: (target: string) => Promise<A>
  /** The target is a name that a conflict may tell. */
  named?: boolean
}

function sameTarget(
  key: RequestKey,
  { target, request_hash }: KeptRequest,
  named: boolean,
): string {
  if (request_hash === key.hash) return target
  throw new Refusal(
    'idempotency_conflict',
    'this Idempotency-Key came with another request before',
    named ? { made: target } : {},
  )
}

/**
 * The runs that this caller has made under these keys, in one request, as far as they are still there: what was made as a whole
 * and is partly deleted is not made again in part. Undefined when nothing is known of it. @throws Refusal idempotency_conflict
 */
export async function madeBefore(
  reads: Sql,
  { name }: Caller,
  { texts, hash }: { texts: string[]; hash: string },
): Promise<string[] | undefined> {
  const known = await findKeyedRuns(reads, name, texts)
  const other = known.find(({ request_hash }) => request_hash !== hash)
  if (other) {
    throw new Refusal(
      'idempotency_conflict',
      `this Idempotency-Key was used for ${other.run_id} with another body`,
      { run_id: other.run_id },
    )
  }
  return known.length > 0 ? known.map(({ run_id }) => run_id) : undefined
}

/** Of an answer to a repetition. */
export const replayedHeader = (replayed: boolean): Record<string, string> =>
  replayed ? { 'Idempotent-Replayed': 'true' } : {}

/** A field that is null means the same as one that is left out; what is inside `input` and `metadata` is not ours. */
function withoutNulls(body: unknown): unknown {
  if (Array.isArray(body)) return body.map(withoutNulls)
  return Object.fromEntries(Object.entries(body as object).filter(([, value]) => value !== null))
}
