import { z } from 'zod'
import { readDuration } from '../duration.ts'

/** `"30s"`, checked and kept as it was written. */
export const duration = z
  .string()
  .transform((text, issues) => {
    readDuration(text, issues)
    return text
  })
  .meta({ pattern: '^\\d+(\\.\\d+)?(ms|s|m|h|d)$', examples: ['30s'] })

/** Limits for the clocks of the watchdog, of an agent or of a run. */
export const timeouts = z.strictObject({
  reasoning: duration.optional(),
  tool: duration.optional(),
  turn: duration.optional(),
})
