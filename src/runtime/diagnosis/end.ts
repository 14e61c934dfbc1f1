import { clip } from '../../clip.ts'
import type { WaitFacts } from '../../store/diagnosis.ts'
import { resumeBlocker } from '../run/resume.ts'

/** As much of an error message as a sentence holds. */
const REASON_LENGTH_MAX = 300

/** Of a run that has ended: why, and whether it can go on. */
export function endOf(facts: WaitFacts): string {
  const { status, error_code, error_message, late_result_at, unknown_calls } = facts
  const reasons = [error_code, error_message && clip(error_message, REASON_LENGTH_MAX)]
  const reason = reasons.filter(Boolean).join(': ')
  const end = `The run has ended: ${status}${reason === '' ? '' : ` (${reason})`}.`
  if (status === 'completed') return end
  const late =
    late_result_at === null
      ? ''
      : ` A result that came after that, at ${late_result_at}, is kept and not applied: GET /runs/{run_id}/resume-preview has it.`
  const blocker = resumeBlocker(facts)
  if (blocker === null) return `${end}${late} It can be resumed.`
  return blocker.startsWith('unknown_tool_call')
    ? `${end}${late} It can be resumed by whoever says what became of ${unknown_calls.join(', ')} (resolutions).`
    : `${end}${late} It cannot be resumed: ${blocker}.`
}
