import type { Json } from '../../json.ts'
import type { DeliveryDraft, RunRecord } from '../../store/flush.ts'
import { isTerminal, type RunStatus } from '../../store/rows.ts'

/** JSON characters of an output that a notice has with it; a larger one is left out, and the notice says so. */
const OUTPUT_LENGTH_MAX = 65_536

const TOLD: ReadonlySet<string> = new Set([
  'run_stuck',
  'run_recovered',
  'human_asked',
  'watchdog_verdict',
])

/** The type under which receivers of webhooks are told of an event; undefined: they are not. */
export function noticeType(event_type: string, payload: Record<string, Json>): string | undefined {
  if (event_type === 'run_status_changed') {
    const to = payload['to'] as RunStatus
    return isTerminal(to) ? `runlane.run.${to}` : undefined
  }
  return TOLD.has(event_type) ? `runlane.run.${event_type.replace(/^run_/, '')}` : undefined
}

/** One delivery for each notice and receiver: the `callback_url` of the run, and the endpoints that get those of all runs. */
export function deliveriesOf(
  records: readonly RunRecord[],
  endpoints: readonly string[],
): DeliveryDraft[] {
  return records.flatMap(({ notices }) =>
    notices.flatMap(({ callback_url, output_size, ...notice }) => {
      const with_output = output_size <= OUTPUT_LENGTH_MAX
      const urls = new Set(callback_url === null ? endpoints : [callback_url, ...endpoints])
      return [...urls].map((url) => ({ ...notice, with_output, url, host: new URL(url).host }))
    }),
  )
}
