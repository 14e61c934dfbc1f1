/** What the service itself sends: notices to `callback_url` and to `RUNLANE_WEBHOOK_URLS`. */
import { z } from 'zod'
import { json, jsonObject, time } from './values.ts'
import { runSummary } from './objects.ts'

const text = z.string()

/** Types of notices, and when they are sent. */
export const NOTICES = {
  'runlane.run.completed': 'the run has completed',
  'runlane.run.failed': 'the run has failed; it may be resumed, and end again',
  'runlane.run.cancelled': 'the run was cancelled',
  'runlane.run.timed_out': 'the run has timed out; it may be resumed, and end again',
  'runlane.run.stuck': 'the watchdog has flagged the run as stuck',
  'runlane.run.recovered': 'the run has moved on and is not stuck any more',
  'runlane.run.human_asked': 'the run waits for an answer (`POST /runs/{run_id}/respond`)',
  'runlane.run.watchdog_verdict':
    'the watchdog or reconciler has ended the run, would have (shadow), or holds back',
} as const

const TYPES = Object.keys(NOTICES) as (keyof typeof NOTICES)[]

const data = z.object({
  ...runSummary.shape,
  output: json,
  output_omitted: z.boolean().meta({ description: 'it is larger than 64 kB: read the run' }),
  event: z
    .object({ event_type: text, sequence: z.number().int(), payload: jsonObject })
    .meta({ description: 'what happened; sequences order the notices of a run' }),
})

export const notice = z
  .object({
    specversion: z.literal('1.0'),
    id: text.meta({ description: 'of the event; the same for every delivery of the notice' }),
    source: text.meta({ description: '/runs/{run_id}' }),
    type: z.enum(TYPES),
    subject: text.meta({ description: 'the run_id' }),
    time,
    datacontenttype: z.literal('application/json'),
    data: data.meta({
      description: 'the run without its input, as it was when the event was recorded',
    }),
  })
  .meta({ id: 'Notice', description: 'A CloudEvent 1.0.' })

/** Headers of Standard Webhooks. */
export const noticeHeaders = z.object({
  'webhook-id': text.meta({ description: 'the id of the CloudEvent' }),
  'webhook-timestamp': text.meta({ description: 'of this attempt, in seconds since 1970' }),
  'webhook-signature': text.meta({ description: '`v1,<base64>` by RUNLANE_WEBHOOK_SECRET' }),
})
