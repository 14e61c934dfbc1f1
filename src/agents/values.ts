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
    text = JSON.stringify(value)
  } catch (error) {
    throw new RunError(
      'invalid_result',
      `the result is not JSON: ${error instanceof Error ? error.message : 'unknown'}`,
    )
  }
  if (text === undefined) return { value: null, size: 4 }
  const plain = JSON.parse(text) as Json
  if (SUSPICIOUS.test(text)) {
    const [problem] = jsonProblems(plain, 'result')
    if (problem) throw new RunError('invalid_result', `${problem.path} ${problem.message}`)
  }
  return { value: plain, size: Buffer.byteLength(text) }
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
