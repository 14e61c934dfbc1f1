import { clip } from '../../clip.ts'
import type { Question } from './messages.ts'
import {
  isTerminal,
  type CallKind,
  type CallRow,
  type CheckpointType,
  type RunStatus,
} from '../../store/rows.ts'

const RESUMABLE_CHECKPOINTS: ReadonlySet<CheckpointType> = new Set([
  'input',
  'llm_response',
  'tool_result',
  'journal_update',
])

/** Calls that may have happened or not, and that nobody may repeat: started, without a result, and unsafe. */
export const unknownCalls = (calls: CallRow[]): CallRow[] =>
  calls.filter(
    (call) => call.kind === 'tool' && call.outcome === 'started' && call.effects === 'unsafe',
  )

/** Work, as people want to see it, and not the bookkeeping of replay. */
const WORK: ReadonlySet<CallKind> = new Set(['tool', 'step', 'model', 'delegate'])

/**
 * What the next attempt does not do itself: calls that have an outcome, and delegations, whose report it waits for or finds.
 * `anew`: the ids of those that it makes again all the same.
 */
export const replayedCalls = (calls: CallRow[], anew: ReadonlySet<string> = new Set()): CallRow[] =>
  calls.filter(
    ({ tool_call_id, kind, outcome }) =>
      WORK.has(kind) && (outcome !== 'started' || kind === 'delegate') && !anew.has(tool_call_id),
  )

/** The others: they had begun, and a resume makes them again or has to be told first what became of them. */
export const begunCalls = (calls: CallRow[], anew: ReadonlySet<string>): CallRow[] =>
  calls.filter(
    ({ tool_call_id, kind, outcome }) =>
      WORK.has(kind) && outcome === 'started' && (kind !== 'delegate' || anew.has(tool_call_id)),
  )

export interface ResumeFacts {
  status: RunStatus
  checkpoint_type: CheckpointType | null
  error_code: string | null
  parent_run_id: string | null
  detached: boolean
  unknown_calls: string[]
}

/**
 * Why a manual resume is refused, or null when it is offered: the run has failed or timed out, its latest checkpoint is
 * a safe one, its code replays, and no unsafe call of unknown outcome is open (an operator can settle those).
 */
export function resumeBlocker(run: ResumeFacts): string | null {
  if (!isTerminal(run.status))
    return `the run is ${run.status}, only failed and timed_out runs resume`
  if (run.status === 'cancelled') return 'a cancelled run is never resumed'
  if (run.status === 'completed') return 'the run is completed'
  if (run.parent_run_id !== null && !run.detached)
    return `it was delegated by ${run.parent_run_id}, for which its end counts: that run may be resumed, this one forked`
  if (run.error_code === 'nondeterministic_replay')
    return 'its recorded calls do not fit its code (nondeterministic_replay)'
  if (run.checkpoint_type === null) return 'it has no checkpoint'
  if (!RESUMABLE_CHECKPOINTS.has(run.checkpoint_type))
    return `its latest checkpoint is ${run.checkpoint_type}`
  if (run.unknown_calls.length > 0) return `unknown_tool_call: ${run.unknown_calls.join(', ')}`
  return null
}

const INPUT_LENGTH_MAX = 500

/** So that whoever is asked can look it up outside. */
function argumentsOf({ input }: CallRow): string {
  if (input === null || input === undefined) return ''
  return ` with ${clip(typeof input === 'string' ? input : JSON.stringify(input), INPUT_LENGTH_MAX)}`
}

/** What a human is asked about a call of unknown outcome. */
export function questionOf(
  runId: string,
  attempt: number,
  call: CallRow,
  why: string | null,
): Question {
  return {
    // One question per call and attempt: asking again after another crash is a new one.
    token_id: `wp_${runId}.${attempt}.${call.position}`,
    kind: 'unknown_tool_call',
    name: null,
    tool_call_id: call.tool_call_id,
    tool: call.tool,
    prompt: `The call ${call.tool_call_id} of ${call.tool}${argumentsOf(call)} was started and its outcome is not recorded${why === null ? '' : ` (${why})`}. Did it happen?`,
  }
}
