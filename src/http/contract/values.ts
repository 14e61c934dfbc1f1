/** Pieces of schemas that several operations share. */
import { z } from 'zod'
import { readDuration } from '../../duration.ts'
import type { Json } from '../../json.ts'
import { STATUSES, VISIBILITIES } from '../../store/rows.ts'

/** How the contract shows a schema, where what zod makes of it is the way and not the meaning. */
export const shown = (schema: Record<string, unknown>) => ({
  override: ({ jsonSchema }: { jsonSchema: object }): void => {
    for (const key of Object.keys(jsonSchema)) Reflect.deleteProperty(jsonSchema, key)
    Object.assign(jsonSchema, schema)
  },
})

const ID_LENGTH_MAX = 255
export const id = z.string().min(1).max(ID_LENGTH_MAX)

/** Any JSON value; absent is none. */
export const json = z.custom<Json>((value) => value !== undefined, 'is required').meta(shown({}))

/** Not z.record, which drops a key named __proto__. */
export const jsonObject = z
  .custom<Record<string, Json>>(
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    'must be an object',
  )
  .meta(shown({ type: 'object' }))

const DURATION = { type: 'string', pattern: '^\\d+(\\.\\d+)?(ms|s|m|h|d)$', examples: ['30s'] }

/** `"10m"` in milliseconds. */
export const durationMs = z
  .string()
  .transform((text, context) =>
    readDuration(text, { addIssue: (message) => context.addIssue(message) }),
  )
  .meta(shown(DURATION))

const WAIT_MS_MAX = 5 * 60_000
/** `?wait=30s` in milliseconds, at most five minutes. */
export const wait = z
  .string()
  .transform((text, context) =>
    readDuration(text, { addIssue: (message) => context.addIssue(message) }, { most: WAIT_MS_MAX }),
  )
  .optional()
  .meta(shown({ ...DURATION, description: 'wait so long for the terminal state, at most 5m' }))

const PAGE_MAX = 1000
const numberOfText = (max: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().max(max))

export const limit = numberOfText(PAGE_MAX)
  .pipe(z.number().min(1))
  .default(100)
  .meta(shown({ type: 'integer', minimum: 1, maximum: PAGE_MAX, default: 100 }))

/** A whole number in a query. */
export const integer = (least: number, most: number) =>
  numberOfText(most)
    .pipe(z.number().min(least))
    .meta(shown({ type: 'integer', minimum: least, maximum: most }))

const SEQUENCE_MAX = 2_147_483_647
export const sequence = numberOfText(SEQUENCE_MAX).meta(
  shown({ type: 'integer', minimum: 0, maximum: SEQUENCE_MAX }),
)
/** A position in a list, as the page before gave it. */
const cursorOf = (pattern: RegExp) =>
  z
    .string()
    .max(ID_LENGTH_MAX)
    .regex(pattern, 'is not a cursor of this list')
    .optional()
    .meta({ description: '`next_cursor` of the page before' })
export const runCursor = cursorOf(/^run_[0-9A-Z]{26}$/)
export const numberCursor = cursorOf(/^\d{1,9}$/)
/** Ids of the audit trail grow for as long as the service lives. */
export const auditCursor = cursorOf(/^\d{1,15}$/)

export const visibility = z.enum(VISIBILITIES).default('operator')
export const status = z.enum(STATUSES)
export const flag = z
  .enum(['true', 'false'])
  .transform((text) => text === 'true')
  .optional()
  .meta(shown({ type: 'boolean' }))

/** A time within what Postgres takes: years 1 to 9999, any offset. Given on as UTC. */
export const instant = z.iso
  .datetime({ offset: true })
  .transform((text) => new Date(text))
  .refine((date) => date.getUTCFullYear() >= 1 && date.getUTCFullYear() <= 9999, {
    message: 'must be in the years 1 to 9999',
  })
  .transform((date) => date.toISOString())
  .meta(shown({ type: 'string', format: 'date-time' }))

export const reason = z
  .string()
  .max(1000)
  .nullish()
  .transform((text) => text ?? undefined)

/** A time in an answer. */
export const time = z.string().meta({ format: 'date-time' })
export const nextCursor = z.string().nullable()
