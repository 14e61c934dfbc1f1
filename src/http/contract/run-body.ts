import { z } from 'zod'
import { duration, timeouts } from '../../agents/timeouts.ts'
import { id, instant, json, jsonObject } from './values.ts'

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

/** In a path these two are folders, encoded or not, and clients take them out before they send it. */
const conversationId = id
  .refine((text) => text !== '.' && text !== '..', 'must not be "." or "..": no URL could name it')
  .meta({ description: 'not `.` or `..`, which no URL can name' })

/** The body of POST /runs. Only `agent` is required. */
export const runBody = z.strictObject({
  agent: id,
  input: json.default({}),
  conversation_id: conversationId.nullish(),
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
  timeouts: timeouts.default({}),
  execution_timeout_override: duration.nullish(),
  callback_url: z
    .string()
    .min(1)
    .max(2048)
    .nullish()
    .meta({ description: 'an http or https URL that gets the notices of this run (webhooks)' }),
  metadata: jsonObject.default({}),
})

export type RunBody = z.output<typeof runBody>
