import { clip } from '../clip.ts'
import { messageOf } from '../errors.ts'
import { jsonProblems, OUTPUT_BYTES_MAX, type Json } from '../json.ts'
import { RunError } from './agent.ts'

export const OUTPUT_TOO_LARGE = {
  limit: OUTPUT_BYTES_MAX,
  failure: {
    code: 'output_too_large',
    message: `the output is larger than ${OUTPUT_BYTES_MAX} bytes of JSON`,
  },
}

/** Text that could hold an escaped NUL or surrogate; only then the value is walked. */
const SUSPICIOUS = /\\u(0000|d[89a-f])/i

/**
 * What a value becomes when it is recorded: JSON, with undefined as null, and its size in bytes.
 * @throws RunError `invalid_result` for what JSON or Postgres cannot carry
 */
export function toJson(value: unknown): { value: Json; size: number } {
  let text: string | undefined
  try {
    const lost = lostInJson(value, 'the result', { left: OUTPUT_BYTES_MAX })
    if (lost !== undefined) throw new TypeError(lost)
    text = JSON.stringify(value)
  } catch (error) {
    throw new RunError('invalid_result', `the result is not JSON: ${messageOf(error)}`)
  }
  if (text === undefined) return { value: null, size: 4 }
  const plain = JSON.parse(text) as Json
  if (SUSPICIOUS.test(text)) {
    const [problem] = jsonProblems(plain, 'result')
    if (problem) throw new RunError('invalid_result', `${problem.path} ${problem.message}`)
  }
  return { value: plain, size: Buffer.byteLength(text) }
}

/**
 * What JSON would drop or change without a word: a resumed run would see another value than this one. Looks at no more
 * values than the largest result can have: what has more is too large, or a circle that would be walked for ever.
 */
function lostInJson(
  value: unknown,
  path: string,
  looks: { left: number },
  depth = 0,
): string | undefined {
  looks.left -= 1
  if (looks.left < 0) return undefined
  if (typeof value === 'number' && !Number.isFinite(value)) return `${path} is ${value}`
  if (typeof value === 'function' || typeof value === 'symbol')
    return `${path} is a ${typeof value}`
  if (typeof value === 'bigint') return `${path} is a bigint`
  // Deeper is refused for its depth, or is a circle.
  if (typeof value !== 'object' || value === null || depth > DEPTH_MAX) return undefined
  if ('toJSON' in value && typeof value.toJSON === 'function') return undefined
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index += 1) {
      const lost = lostInJson(value[index], `${path}[${index}]`, looks, depth + 1)
      if (lost !== undefined) return lost
    }
    return undefined
  }
  const kind = Object.prototype.toString.call(value).slice(8, -1)
  if (kind !== 'Object') return `${path} is a ${kind}`
  for (const key in value) {
    const member = (value as Record<string, unknown>)[key]
    const lost = lostInJson(member, `${path}.${key}`, looks, depth + 1)
    if (lost !== undefined) return lost
  }
  return undefined
}

const DEPTH_MAX = 64

/** The same value with every text fit to be stored: no NUL, no half characters. For what a model or server wrote. */
export function cleanText(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll('\0', '\uFFFD').toWellFormed()
  if (Array.isArray(value)) return value.map(cleanText)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [cleanText(key), cleanText(inner)]),
  )
}

/** What a recorded result becomes. @throws RunError `invalid_result`, `output_too_large` */
export function checkedResult(result: unknown): { value: Json; size: number } {
  const json = toJson(result)
  if (json.size <= OUTPUT_TOO_LARGE.limit) return json
  throw new RunError(
    'output_too_large',
    `a result is larger than ${OUTPUT_TOO_LARGE.limit} bytes of JSON`,
  )
}

const INPUT_LENGTH_MAX = 8_000

/** The input of a tool call as it is kept for people: whole, or when it is long the beginning of its JSON text. */
export function shownInput(input: Json): Json {
  // Code without types may give anything; what is no JSON has nothing to show.
  const text = JSON.stringify(cleanText(input)) ?? 'null'
  return text.length <= INPUT_LENGTH_MAX ? (JSON.parse(text) as Json) : clip(text, INPUT_LENGTH_MAX)
}
