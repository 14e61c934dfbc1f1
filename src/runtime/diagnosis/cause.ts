import type { Gate } from './gates.ts'

/** One reason why a run is not further: since when, who or what holds it, what shows it, what would unblock it. */
export interface Cause {
  gate: Gate
  /** The run that it is about: the one that was asked for, or one that it waits for. */
  run_id: string
  since: string | null
  holder: string | null
  limit: number | null
  current: number | null
  evidence: string
  action: string | null
}

export const cause = (
  gate: Gate,
  evidence: string,
  action: string | null,
): Omit<Cause, 'run_id'> => ({
  gate,
  since: null,
  holder: null,
  limit: null,
  current: null,
  evidence,
  action,
})

/** What would wake it is not there: it would wait for ever, did nobody mend it. */
export const missing = (
  evidence: string,
  since: string,
  action = 'wait for the next pass of the reconciler, or cancel it',
): Omit<Cause, 'run_id'> => ({ ...cause('waker.missing', evidence, action), since })
