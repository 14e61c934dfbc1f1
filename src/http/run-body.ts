import { z } from 'zod'
import { readDuration } from '../duration.ts'
import type { Json } from '../json.ts'
import { instant } from './queries.ts'

const SURFACES = [
  'api',
  'chat',
  'playground',
  'web_trigger',
  'email',
  'slack',
  'telegram',
  'inbox',
  'schedule',
  'child',
  'human_review',
] as const

const ID_LENGTH_MAX = 255
const id = z.string().min(1).max(ID_LENGTH_MAX)
const duration = z.string().transform((text, context) => {
  readDuration(text, { addIssue: (message) => context.addIssue(message) })
  return text
})
const json = z.custom<Json>((value) => value !== undefined)

/** The body of POST /runs. Only `agent` is required. */
export const runBody = z.strictObject({
  agent: id,
  input: json.default({}),
  conversation_id: id.nullish(),
  surface: z.enum(SURFACES).default('api'),
  channel: id.nullish(),
  sender_key: id.nullish(),
  inbox_item_id: id.nullish(),
  task_run_id: id.nullish(),
  lane_key: id.nullish(),
  lane_policy: z.enum(['enqueue', 'reject', 'interrupt', 'coalesce']).default('enqueue'),
  queue: id.default('default'),
  priority: z.number().int().min(-1_000_000).max(1_000_000).default(0),
  run_at: instant.nullish(),
  /** Default: what the agent says. */
  hold_lane_on_human: z.boolean().optional(),
  owner: id.nullish(),
  timeouts: z
    .strictObject({
      reasoning: duration.optional(),
      tool: duration.optional(),
      turn: duration.optional(),
    })
    .default({}),
  execution_timeout_override: duration.nullish(),
  callback_url: z.null('callback_url is not supported by this version').optional(),
  // Not z.record, which drops a key named __proto__.
  metadata: z
    .custom<Record<string, Json>>(
      (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
      'must be an object',
    )
    .default({}),
})

export type RunBody = z.output<typeof runBody>

const RUNS_PER_BATCH_MAX = 1000
export const batchBody = z.strictObject({ runs: z.array(runBody).min(1).max(RUNS_PER_BATCH_MAX) })

/**
 * The lane of a run whose caller named none: what belongs together is strictly ordered, everything else runs beside it.
 * Answers the field that is missing where the surface needs one.
 */
export function laneKeyOf(
  body: RunBody,
  conversationId: string,
): { laneKey: string } | { missing: string } {
  if (isGiven(body.lane_key)) return { laneKey: body.lane_key }
  if (body.surface === 'inbox') {
    return !isGiven(body.inbox_item_id)
      ? { missing: 'inbox_item_id' }
      : { laneKey: `inbox_item:${body.inbox_item_id}` }
  }
  if (body.surface === 'schedule') {
    return !isGiven(body.task_run_id)
      ? { missing: 'task_run_id' }
      : { laneKey: `task_run:${body.task_run_id}` }
  }
  if (
    body.surface === 'slack' ||
    body.surface === 'telegram' ||
    (body.surface === 'email' && isGiven(body.sender_key))
  ) {
    if (!isGiven(body.sender_key)) return { missing: 'sender_key' }
    return { laneKey: `adhoc:${body.channel ?? body.surface}:${body.sender_key}` }
  }
  return { laneKey: `conversation:${conversationId}` }
}

const isGiven = (value: string | null | undefined): value is string =>
  value !== null && value !== undefined
