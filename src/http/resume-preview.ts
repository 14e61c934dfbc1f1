import { begunCalls, replayedCalls, unknownCalls } from '../runtime/run/resume.ts'
import type { OpenDelegation } from '../store/delegations.ts'
import type { CallRow } from '../store/rows.ts'

/** What a resume would take from the records, and what had begun and would be made again, or asks first. */
export function previewOf(calls: CallRow[], delegations: OpenDelegation[]) {
  const anew = new Set(delegations.flatMap((one) => (one.cut_off ? one.tool_call_id : [])))
  const asking = new Set(unknownCalls(calls).map((call) => call.tool_call_id))
  return {
    replayed: replayedCalls(calls, anew).map((call) => {
      const { tool_call_id, kind, tool, outcome } = call
      return { tool_call_id, kind, tool, outcome, ...childOf(call) }
    }),
    unknown: begunCalls(calls, anew).map((call) => {
      const { tool_call_id, kind, tool, effects } = call
      return { tool_call_id, kind, tool, effects, asks: asking.has(tool_call_id), ...childOf(call) }
    }),
  }
}

const childOf = ({ kind, input }: CallRow) =>
  kind === 'delegate' ? { child_run_id: (input as { child_run_id: string }).child_run_id } : {}
