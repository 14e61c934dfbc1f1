import { z } from 'zod'
import { duration } from './timeouts.ts'

/**
 * What becomes of a run that should have a reader and has none: nothing (`keep`), or a cancel when that has lasted so long,
 * such as `{ cancel_after: '10m' }`.
 */
export const onOrphan = z.union([z.literal('keep'), z.strictObject({ cancel_after: duration })])
export type OnOrphan = z.output<typeof onOrphan>
