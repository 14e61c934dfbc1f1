import type { HostedRow, InboxRow, WaitpointRow } from '../../store/rows.ts'
import { actionOf } from './command-audit.ts'
import { reportLetter } from '../run/delegation.ts'
import type { MessageOf, Resolution, RunMessage, UnknownCall } from '../run/messages.ts'

/** What a letter of the inbox says to the chart. Letters are written by this service only, so their form is known. */
export function messageOfLetter(row: InboxRow, nodeId: string): RunMessage | undefined {
  const by = textOrNull(row.payload['by']) ?? 'unknown'
  const reason = textOrNull(row.payload['reason'])
  const letter = {
    dedupe_key: row.dedupe_key,
    command_id: textOrNull(row.payload['command_id']),
    kind: row.kind,
    audit: {
      action: actionOf(row.kind),
      actor: by,
      // An interrupt comes from whoever may post runs.
      role: textOrNull(row.payload['role']) ?? 'service',
      reason,
      request_id: textOrNull(row.payload['request_id']),
    },
  }
  if (row.kind === 'recycle')
    return { type: 'run.recycled', forced: row.payload['force'] === true, by, letter }
  if (row.kind === 'cancel' || row.kind === 'stop' || row.kind === 'interrupt') {
    return { type: 'cancel.requested', by, reason, node_id: nodeId, letter }
  }
  if (row.kind === 'extend')
    return { type: 'turn.extended', by_ms: Number(row.payload['by_ms']), letter }
  if (row.kind === 'resume') {
    const resolutions = (row.payload['resolutions'] ?? []) as unknown as {
      call: UnknownCall
      resolution: Resolution
    }[]
    return { type: 'resume.requested', by, resolutions, letter }
  }
  if (row.kind === 'respond') {
    const { token_id, resolution, call } = row.payload as unknown as {
      token_id: string
      resolution: Resolution
      call: UnknownCall | null
    }
    const kind = call ? 'unknown_tool_call' : 'crash_loop'
    return { type: 'human.answered', by, token_id, kind, resolution, call, letter }
  }
  return undefined
}

/**
 * What a run that comes to this node hears first: what asks for its end, or else that the run which it works for is told to
 * end. That letter is the other run's, whose decision tells all that it has delegated.
 */
export function endingMessages({ run_id, ending_mail }: HostedRow, nodeId: string): RunMessage[] {
  const letters = ending_mail ?? []
  const own = letters.filter((letter) => letter.run_id === run_id)
  if (own.length > 0) return own.flatMap((letter) => messageOfLetter(letter, nodeId) ?? [])
  return letters.slice(0, 1).map(({ run_id: above, payload }) => {
    const by = textOrNull(payload['by']) ?? 'unknown'
    const why = textOrNull(payload['reason'])
    const reason = `the run above it, ${above}, was told to end${why === null ? '' : `: ${why}`}`
    return { type: 'cancel.requested', by, reason, node_id: nodeId }
  })
}

/** The child run whose report this letter announces. */
export const childOfReport = ({ kind, payload }: InboxRow): string | undefined =>
  kind === 'report' ? (payload['child_run_id'] as string) : undefined

/** A report that came when its run was over: consumed, and nothing else. A resumed run reads the child's row itself. */
export const unreadReport = (child_run_id: string): MessageOf<'child.reported'> => ({
  type: 'child.reported',
  call: null,
  report: { child_run_id, status: 'completed', output: null, error_message: null },
  letter: reportLetter(child_run_id),
})

/**
 * A parked run goes on when one of the signals has come that it waits for; its code reads it, so its letter stays. Letters
 * are in the order in which they came.
 */
export function wakingSignal(
  letters: InboxRow[],
  waitpoints: WaitpointRow[],
): MessageOf<'human.answered'> | undefined {
  const asked = waitpoints.filter(({ kind, status }) => kind === 'signal' && status === 'pending')
  for (const { kind, name, payload } of letters) {
    const found = kind === 'signal' ? asked.find((one) => one.name === name) : undefined
    if (!found) continue
    const { token_id } = found
    const others = asked.filter((one) => one !== found)
    return {
      type: 'human.answered',
      by: textOrNull(payload['by']) ?? 'unknown',
      token_id,
      kind: 'signal',
      resolution: null,
      call: null,
      dismissed: others.map((one) => one.token_id),
    }
  }
  return undefined
}

const textOrNull = (value: unknown): string | null => (typeof value === 'string' ? value : null)
