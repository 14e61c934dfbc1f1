import type { InboxRow } from '../store/rows.ts'
import type { Resolution, RunMessage, UnknownCall } from './messages.ts'

/** What a letter of the inbox says to the chart. Letters are written by this service only, so their form is known. */
export function messageOfLetter(row: InboxRow): RunMessage | undefined {
  const by = textOrNull(row.payload['by']) ?? 'unknown'
  const reason = textOrNull(row.payload['reason'])
  const letter = {
    dedupe_key: row.dedupe_key,
    command_id: textOrNull(row.payload['command_id']),
    kind: row.kind,
    audit: {
      action: `agent_runtime.${row.kind}`,
      actor: by,
      // An interrupt comes from whoever may post runs.
      role: textOrNull(row.payload['role']) ?? 'service',
      reason,
      request_id: textOrNull(row.payload['request_id']),
    },
  }
  if (row.kind === 'recycle')
    return { type: 'run.recycled', forced: row.payload['force'] === true, by, letter }
  if (row.kind === 'cancel' || row.kind === 'stop') {
    return { type: 'cancel.requested', by, reason, letter }
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
    return { type: 'human.answered', by, token_id, resolution, call, letter }
  }
  return undefined
}

const textOrNull = (value: unknown): string | null => (typeof value === 'string' ? value : null)
