import type { RunEventRow, RunStatus } from '../../store/rows.ts'

/** One stay of a run in active. */
export interface Attempt {
  attempt: number
  started_at: string
  ended_at: string | null
  /** The status that it led to, or `lost`; null while it goes on. */
  outcome: string | null
  detail: string | null
}

const ACTIVE: readonly string[] = [
  'running',
  'resuming',
  'waiting_on_tool',
  'waiting_on_child',
  'cancel_requested',
]

/**
 * The attempts of a run as its events tell them (`run_status_changed`, `run_resumed`; oldest first, from the first on).
 * A planned hand-over goes on with the attempt that it interrupts; a loss ends one, even where no other status follows.
 */
export function attemptsOf(events: readonly RunEventRow[]): Attempt[] {
  const attempts: Attempt[] = []
  let handedOver = false
  const end = (at: string, outcome: string, detail: string | null): void => {
    const last = attempts.at(-1)
    if (last) Object.assign(last, { ended_at: at, outcome, detail })
  }
  const begin = (at: string): void => {
    const attempt = (attempts.at(-1)?.attempt ?? 0) + 1
    attempts.push({ attempt, started_at: at, ended_at: null, outcome: null, detail: null })
  }
  for (const { event_type, payload, created_at } of events) {
    if (event_type === 'run_resumed') {
      const { attempt } = payload as { attempt: number }
      while ((attempts.at(-1)?.attempt ?? attempt) < attempt) {
        end(created_at, 'lost', null)
        begin(created_at)
      }
      continue
    }
    const { from, to, detail } = payload as {
      from: RunStatus | null
      to: RunStatus
      detail: string | null
    }
    const was = from !== null && ACTIVE.includes(from)
    const is = ACTIVE.includes(to)
    if (was && to === 'resuming') end(created_at, 'lost', detail)
    if ((is && !was && !handedOver) || (was && to === 'resuming')) begin(created_at)
    if (was && !is && to !== 'queued') end(created_at, to, detail)
    if (to === 'queued') handedOver = was
    else if (is) handedOver = false
  }
  return attempts
}
