import { createHmac } from 'node:crypto'
import { toSummary } from '../http/run-view.ts'
import type { DueDelivery, Notice } from '../store/deliveries.ts'
import type { RunView } from '../store/runs.ts'

/** The body of a webhook: a CloudEvent 1.0 in its JSON format. Every attempt of a delivery has the same. */
export function cloudEventOf(delivery: DueDelivery): string {
  const { event_id, run_id, type, created_at, notice } = delivery
  return JSON.stringify({
    specversion: '1.0',
    // Event ids count within one database. With the run's, which no two services share, they are unique everywhere.
    id: String(event_id),
    source: `/runs/${run_id}`,
    type,
    subject: run_id,
    time: created_at,
    datacontenttype: 'application/json',
    data: dataOf(notice),
  })
}

/** Headers of Standard Webhooks, for an attempt at `now` (milliseconds since 1970). */
export function signedHeaders(
  secret: string,
  id: string,
  body: string,
  now: number,
): Record<string, string> {
  const timestamp = String(Math.floor(now / 1000))
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64')
  const signature = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')
  return {
    'user-agent': 'runlane',
    'content-type': 'application/cloudevents+json; charset=utf-8',
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': `v1,${signature}`,
  }
}

function dataOf({ event, run }: Notice): Record<string, unknown> {
  // The row was stored as JSON: its times are texts as Postgres writes them.
  const row = Object.fromEntries(
    Object.entries(run).map(([name, value]) => [name, TIMES.has(name) ? rfc3339(value) : value]),
  ) as unknown as RunView
  const omitted = run.status === 'completed' && run.output === null
  return { ...toSummary(row), output: run.output, output_omitted: omitted, event }
}

const TIMES: ReadonlySet<string> = new Set([
  'created_at',
  'started_at',
  'ended_at',
  'last_heartbeat_at',
  'last_progress_at',
])
const rfc3339 = (value: unknown): unknown =>
  typeof value === 'string' ? new Date(value).toISOString() : value
