import type { CancelFacts } from '../../store/cancels.ts'
import { rfc3339 } from '../../store/database.ts'
import type { RunMessage } from './messages.ts'

/**
 * Whose word the end of a cancelled run is; part of its last event.
 *
 * `acknowledged_by`: the executor, whose code has come to its boundary; the runtime, where no code of the run was there
 * to be asked; null where the executor was gone or did not answer. `confirmed_by`: a hard stop is one without an answer.
 */
export function endOfCancel(message: RunMessage) {
  return {
    acknowledged_by: acknowledgedBy(message),
    confirmed_by: message.type === 'cancel.expired' ? 'hard stop' : 'runtime',
  }
}

function acknowledgedBy(message: RunMessage): string | null {
  if (message.type === 'cancel.requested') return 'runtime'
  if (message.type === 'session.exited') return message.by ?? 'executor'
  return message.type === 'run.completed' || message.type === 'run.failed' ? 'executor' : null
}

/** The cancel of a run as people follow it: asked for, brought to the run, answered by who runs it, over. */
export function cancelOf(facts: CancelFacts | null) {
  if (facts === null) return null
  const { asked, heard, ended } = facts
  const { by, reason, node_id } = heard?.payload ?? {}
  const { acknowledged_by, confirmed_by } = ended?.payload ?? {}
  const requested = moment(asked?.at ?? heard?.at, asked?.by ?? text(by))
  if (requested === null) return null
  return {
    reason: asked ? asked.reason : text(reason),
    requested,
    delivered: moment(heard?.at, text(node_id)),
    acknowledged: text(acknowledged_by) === null ? null : moment(ended?.at, text(acknowledged_by)),
    confirmed: moment(ended?.at, text(confirmed_by)),
  }
}

const moment = (at: string | undefined, by: string | null) =>
  at === undefined ? null : { at: rfc3339(at), by: by ?? 'unknown' }
const text = (value: unknown): string | null => (typeof value === 'string' ? value : null)
