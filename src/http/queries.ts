import { z } from 'zod'
import { VISIBILITIES } from '../store/rows.ts'

const PAGE_MAX = 1000

const wholeNumber = (max: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().max(max))

export const pageQuery = z.strictObject({
  limit: wholeNumber(PAGE_MAX).pipe(z.number().min(1)).default(100),
  cursor: z.string().min(1).max(255).optional(),
})
export const visibilityQuery = z.enum(VISIBILITIES).default('operator')
export const lastSequenceQuery = wholeNumber(2_147_483_647)
/** A time within what Postgres takes: years 1 to 9999, any offset. Given on as UTC. */
export const instant = z.iso
  .datetime({ offset: true })
  .transform((text) => new Date(text))
  .refine((date) => date.getUTCFullYear() >= 1 && date.getUTCFullYear() <= 9999, {
    message: 'must be in the years 1 to 9999',
  })
  .transform((date) => date.toISOString())
export const eventIdText = /^\d{1,15}$/
