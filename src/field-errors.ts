import type { z } from 'zod'
import type { FieldError } from './errors.ts'
import { nearest } from './nearest.ts'

/**
 * A value as its schema makes it, or what does not fit. Each message goes on where the path of its field ends
 * ("`priority` must be a whole number"), and so does every message that a schema brings along.
 */
export function fitted<S extends z.ZodType>(
  schema: S,
  value: unknown,
): { data: z.output<S>; errors?: never } | { data?: never; errors: FieldError[] } {
  const parsed = schema.safeParse(value, { error: inWords })
  if (parsed.success) return { data: parsed.data }
  return { errors: parsed.error.issues.flatMap((issue) => errorsOf(issue, schema)) }
}

const UNKNOWN = 'is an unknown field'

/** What zod finds, said to whoever wrote the value; schemas that say it better themselves go before. */
const inWords: z.core.$ZodErrorMap = (issue) => {
  switch (issue.code) {
    case 'invalid_type':
      return typeText(issue.expected, issue.input)
    case 'invalid_value':
      return issue.input === undefined ? 'is required' : choiceText(issue.values, issue.input)
    case 'too_big':
      if (issue.note !== undefined) return 'is too large'
      return boundText(issue.origin, issue.inclusive ? 'at most' : 'less than', issue.maximum)
    case 'too_small':
      if (issue.note !== undefined) return 'is too small'
      if (isCounted(issue.origin) && issue.minimum === 1) return 'must not be empty'
      return boundText(issue.origin, issue.inclusive ? 'at least' : 'more than', issue.minimum)
    case 'invalid_format':
      return issue.format === 'datetime'
        ? 'must be a time with its offset, such as 2026-04-15T10:01:23Z'
        : 'does not have the right form'
    case 'not_multiple_of':
      return `must be a multiple of ${issue.divisor}`
    case 'unrecognized_keys':
      return UNKNOWN
    // The key is the end of the path, so what is wrong with it goes on there.
    case 'invalid_key':
      return issue.issues[0]?.message ?? 'is not a name that is taken here'
    default:
      return 'does not fit'
  }
}

const EXPECTED: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
  record: 'an object',
  null: 'null',
}

function typeText(expected: string, input: unknown): string {
  if (input === undefined) return 'is required'
  const wanted = `must be ${EXPECTED[expected] ?? expected}`
  // 1.5 is a number as well: what it is would not say what is wrong.
  return expected === 'int' && typeof input === 'number'
    ? wanted
    : `${wanted}, not ${kindOf(input)}`
}

function kindOf(value: unknown): string {
  if (value === null || typeof value === 'boolean') return String(value)
  return Array.isArray(value)
    ? 'an array'
    : typeof value === 'object'
      ? 'an object'
      : `a ${typeof value}`
}

function choiceText(values: readonly z.core.util.Primitive[], input: unknown): string {
  const words = values.map((value) => (typeof value === 'string' ? `"${value}"` : String(value)))
  const last = words.at(-1) ?? ''
  const choice = words.length < 2 ? last : `${words.slice(0, -1).join(', ')} or ${last}`
  const near = typeof input === 'string' ? nearest(input, values.map(String)) : undefined
  return `must be ${choice}${near === undefined ? '' : `, did you mean "${near}"?`}`
}

const COUNTED: Readonly<Record<string, string>> = { string: 'character', array: 'item' }
const isCounted = (origin: string): boolean => Object.hasOwn(COUNTED, origin)

function boundText(origin: string, bound: string, limit: number | bigint): string {
  const unit = COUNTED[origin]
  if (unit === undefined) return `must be ${bound} ${limit}`
  return `must have ${bound} ${limit} ${unit}${Number(limit) === 1 ? '' : 's'}`
}

function errorsOf(issue: z.core.$ZodIssue, schema: z.ZodType): FieldError[] {
  const path = pathText(issue.path)
  if (issue.code === 'invalid_union') {
    // The kind that fits best is the one that was meant.
    const [best = []] = issue.errors.toSorted((a, b) => a.length - b.length)
    return best.flatMap((inner) =>
      errorsOf({ ...inner, path: [...issue.path, ...inner.path] }, schema),
    )
  }
  if (issue.code !== 'unrecognized_keys') return [{ path, message: issue.message }]
  const known = knownFields(schema, issue.path)
  return issue.keys.map((key) => {
    const near = nearest(key, known)
    const hint = near === undefined ? '' : `, did you mean "${near}"?`
    const message = issue.message === UNKNOWN ? `${UNKNOWN}${hint}` : issue.message
    return { path: path === '' ? key : `${path}.${key}`, message }
  })
}

/** `runs[1].timeouts.tool` */
export const pathText = (path: readonly PropertyKey[]): string =>
  path
    .map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`))
    .join('')
    .replace(/^\./, '')

/** The fields of an object inside the schema, for "did you mean". */
function knownFields(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let inner: unknown = schema
  for (const part of path) {
    inner = unwrapped(inner)
    if (typeof part === 'number') inner = (inner as { element?: unknown } | undefined)?.element
    else inner = (inner as { shape?: Record<PropertyKey, unknown> } | undefined)?.shape?.[part]
  }
  return Object.keys((unwrapped(inner) as { shape?: object } | undefined)?.shape ?? {})
}

function unwrapped(schema: unknown): unknown {
  let inner = schema
  while (
    typeof inner === 'object' &&
    inner !== null &&
    // An array unwraps to its element as well; the index in the path asks for that.
    !('element' in inner) &&
    'unwrap' in inner &&
    typeof inner.unwrap === 'function'
  ) {
    inner = (inner as { unwrap(): unknown }).unwrap()
  }
  return inner
}
