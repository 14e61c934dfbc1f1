import type { CallRow } from '../../store/rows.ts'
import type { Ledger } from './ledger.ts'
import type { MessageOf } from './messages.ts'
import { questionOf, replayedCalls, unknownCalls } from './resume.ts'

/** What its records say to a run that resumes: it goes on from them, or somebody has to say first what became of a call. */
export function rehydrated(
  { runId, chart, fields }: Ledger,
  calls: CallRow[],
): MessageOf<'human.asked'> | MessageOf<'session.ready'> {
  const unknown = unknownCalls(calls)
  if (unknown.length > 0) {
    const { attempt } = chart.context
    const waitpoints = unknown.map((call) => questionOf(runId, attempt, call, fields.detail))
    return { type: 'human.asked', questions: unknown.length, waitpoints }
  }
  const replayed = replayedCalls(calls)
  return {
    type: 'session.ready',
    replayed: replayed.map(({ tool_call_id, kind, tool }) => ({ tool_call_id, kind, tool })),
  }
}
