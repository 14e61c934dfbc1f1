/** One action on many runs. */
import { z } from 'zod'
import { endpoint } from './endpoint.ts'
import { id, instant, nextCursor, runCursor, shown, status } from './values.ts'

/** Runs that one call acts on. */
export const RUNS_PER_BULK_MAX = 1_000
/** Run ids that a dry run names. */
export const RUNS_SHOWN_MAX = 100

const count = z.number().int()
const name = id.optional()
const statusList = z.array(status).min(1).max(status.options.length)

const filter = z
  .strictObject({
    status: z
      .union([statusList, status.transform((one) => [one])])
      .optional()
      .meta(shown({ anyOf: [{ enum: status.options }, listOf({ enum: status.options })] })),
    agent: name,
    conversation_id: name,
    queue: name,
    lane_key: name,
    stuck: z.boolean().optional(),
    orphan: z.boolean().optional(),
    q: name,
    since: instant.optional(),
    run_ids: z.array(id).min(1).max(RUNS_PER_BULK_MAX).optional(),
  })
  // That runs are not stuck says as little of which are meant as nothing at all.
  .refine((given) => Object.values(given).some((value) => value !== undefined && value !== false), {
    message: 'must name at least one thing that the runs have in common',
  })
  .meta({
    description:
      'as `GET /runs` has them; all that are given must fit. Without `run_ids` only runs that the action is about: unfinished ones (`cancel`), stuck ones (`recycle`), failed and timed-out ones (`resume`)',
  })

function listOf(items: object) {
  return { type: 'array', items, minItems: 1, maxItems: status.options.length }
}

const action = z.enum(['cancel', 'recycle', 'resume'])

const truncated = z
  .boolean()
  .meta({ description: `more runs fit than the ${RUNS_PER_BULK_MAX} of one call` })

const resumeRefusal = z.enum(['not_resumable', 'unknown_tool_call'])
export type ResumeRefusal = z.output<typeof resumeRefusal>

const preview = z.object({
  action,
  dry_run: z.literal(true),
  matched: count,
  by_status: z.partialRecord(status, count),
  run_ids: z
    .array(z.string())
    .meta({ description: `the first ${RUNS_SHOWN_MAX} of them, newest first` }),
  would_refuse: z
    .partialRecord(resumeRefusal, count)
    .optional()
    .meta({
      description: `of \`resume\`: how many of the first ${RUNS_PER_BULK_MAX} would be refused as they are now, by the code that says why`,
    }),
  truncated,
})

const outcome = z.object({
  action,
  dry_run: z.literal(false),
  applied: count,
  refused: count,
  results: z.array(
    z.object({
      run_id: z.string(),
      outcome: z.enum(['applied', 'refused']).meta({
        description: 'applied: its command is written, and comes to the run as a single one does',
      }),
      code: z.string().nullable().meta({ description: 'why it was refused' }),
    }),
  ),
  truncated,
  next_cursor: nextCursor.meta({ description: '`cursor` of the call that goes on' }),
})

export const bulkRuns = endpoint({
  id: 'bulkRuns',
  method: 'POST',
  path: '/runs/bulk',
  tag: 'Runs',
  role: 'service',
  audits: 'agent_runtime.bulk',
  does: 'cancels, recycles (admins) or resumes the runs that fit a filter (of a service, those that it created), up to 1,000 in a call, with a result for each; a dry run unless `"dry_run": false`: how many by status, and the first ids',
  keyed: true,
  body: z.strictObject({
    action,
    filter,
    reason: z.string().min(1).max(1000),
    dry_run: z
      .boolean()
      .default(true)
      .meta({ description: 'true, the default: says what would be done, and does nothing' }),
    cursor: runCursor,
  }),
  answers: {
    200: z
      .union([preview.meta({ id: 'BulkPreview' }), outcome.meta({ id: 'BulkOutcome' })])
      .meta({ id: 'Bulk' }),
  },
})
