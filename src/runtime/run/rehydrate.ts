import type { RunMachine } from '../../../machines/run.ts'
import type { CallRow, HostedRow } from '../../store/rows.ts'
import { resolveStatus } from './codec.ts'
import { Ledger } from './ledger.ts'
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

/** What is decided on a row goes on from there; a chart that cannot be restored can only be ended. */
export function ledgerOf(
  row: HostedRow,
  machine: RunMachine,
): { ledger: Ledger; unrestorable: string | null } {
  try {
    return { ledger: Ledger.restore(row, machine), unrestorable: null }
  } catch (error) {
    const unrestorable = error instanceof Error ? error.message : String(error)
    return { ledger: new Ledger(row, resolveStatus(machine, row), machine), unrestorable }
  }
}
