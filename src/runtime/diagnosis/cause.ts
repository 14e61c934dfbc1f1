import { GATES, type Gate } from './gates.ts'

/** One reason why a run is not further: since when and until when, who or what holds it, what shows it, what would unblock it. */
export interface Cause {
  gate: Gate
  /** The run that it is about: the one that was asked for, or one that it waits for. */
  run_id: string
  since: string | null
  /** When it changes by itself, or is ended. */
  deadline: string | null
  holder: string | null
  /** Of a clock in milliseconds, of a queue or of nodes in runs. */
  limit: number | null
  /** What counts against the limit, in the same unit. */
  current: number | null
  evidence: string
  action: string | null
}

/** A cause of the run that is looked at, and how bad it is: as bad as what this gate usually stands for. */
export interface Finding extends Omit<Cause, 'run_id'> {
  severity: Gate
}

export const finding = (
  gate: Gate,
  evidence: string,
  action: string | null,
  more: Partial<Omit<Finding, 'gate' | 'evidence' | 'action'>> = {},
): Finding => ({
  gate,
  since: null,
  deadline: null,
  holder: null,
  limit: null,
  current: null,
  evidence,
  action,
  severity: gate,
  ...more,
})

/** What would wake it is not there: it would wait for ever, did nobody mend it. */
export const missing = (
  evidence: string,
  since: string,
  action = 'wait for the next pass of the reconciler, or cancel it',
): Finding => finding('waker.missing', evidence, action, { since })

const rankOf = ({ severity }: Pick<Finding, 'severity'>): number => GATES.indexOf(severity)

/** Those of the same severity stay in their order. */
export const worstFirst = <F extends Pick<Finding, 'severity'>>(findings: readonly F[]): F[] =>
  findings.toSorted((a, b) => rankOf(a) - rankOf(b))
