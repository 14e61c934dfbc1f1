import { z } from 'zod'
import { VISIBILITIES } from '../store/rows.ts'

export const PAGE_MAX = 1000

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
export const lastSequenceQuery = wholeNumber(2_147_483_647).default(0)
export const eventIdText = /^\d{1,15}$/
