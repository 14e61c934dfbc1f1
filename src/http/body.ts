import type { Context } from 'hono'
import type { z } from 'zod'
import { type FieldError, Refusal } from '../errors.ts'
import { fitted } from '../field-errors.ts'
import { jsonProblems } from '../json.ts'

/**
 * The JSON body, checked against its schema.
 * @throws Refusal bad_request (not JSON), body_too_large, unsupported_encoding, validation_error with the fields that do not fit
 */
export async function readBody<S extends z.ZodObject>(
  c: Context,
  schema: S,
  limitBytes: number,
): Promise<z.output<S>> {
  return parseWith(schema, await readJson(c, limitBytes))
}

async function readJson(c: Context, limitBytes: number): Promise<unknown> {
  const encoding = c.req.header('content-encoding') ?? 'identity'
  if (encoding.toLowerCase() !== 'identity')
    throw new Refusal(
      'unsupported_encoding',
      `Content-Encoding ${encoding.slice(0, 64)} is not taken here: send the body as it is`,
    )
  const text = await readText(c.req.raw, limitBytes)
  if (text.trim() === '') return {}
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new Refusal(
      'bad_request',
      `the body is not JSON: ${error instanceof Error ? error.message.slice(0, 200) : ''}`,
    )
  }
  const problems = jsonProblems(value)
  if (problems.length > 0) throw invalid(problems)
  return value
}

/** Counts while it reads: a body without a length, or with a wrong one, is stopped at the limit as well. */
async function readText(request: Request, limitBytes: number): Promise<string> {
  const tooLarge = (): Refusal =>
    new Refusal(
      'body_too_large',
      `the body is larger than ${limitBytes} bytes (RUNLANE_BODY_LIMIT)`,
    )
  if (Number(request.headers.get('content-length') ?? 0) > limitBytes) throw tooLarge()
  const parts: Uint8Array[] = []
  let size = 0
  const body: AsyncIterable<Uint8Array> | Uint8Array[] = request.body ?? []
  for await (const part of body) {
    size += part.length
    if (size > limitBytes) throw tooLarge()
    parts.push(part)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts))
  } catch {
    throw new Refusal('bad_request', 'the body is not UTF-8')
  }
}

/** @throws Refusal validation_error */
export function readQuery<S extends z.ZodObject>(c: Context, schema: S): z.output<S> {
  const values = Object.create(null) as Record<string, string>
  for (const [name, all] of Object.entries(c.req.queries())) {
    if (all.length > 1) throw invalid([{ path: name, message: 'is given more than once' }])
    const [value = ''] = all
    if (value.includes('\0') || !value.isWellFormed())
      throw invalid([{ path: name, message: 'is not valid text' }])
    values[name] = value
  }
  return parseWith(schema, values)
}

export function invalid(errors: FieldError[]): Refusal {
  const first = errors[0]
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more)` : ''
  return new Refusal(
    'validation_error',
    `${first?.path || 'the body'} ${first?.message ?? 'does not fit'}${more}`,
    { errors },
  )
}

function parseWith<S extends z.ZodObject>(schema: S, value: unknown): z.output<S> {
  const found = fitted(schema, value)
  if (found.errors) throw invalid(found.errors)
  return found.data
}
