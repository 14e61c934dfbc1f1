import type { AgentStatus, Json, Run, RunEvent, RunSummary } from '../client/index.ts'
import {
  type Cell,
  clipped,
  fields,
  indented,
  jsonBlock,
  printable,
  printableLines,
  spoken,
  table,
} from './text.ts'

/** A run with those that it delegated, as the snapshot nests them. */
export type Family = RunSummary & { readonly subagents: readonly Family[] }

const statusOf = (run: RunSummary): string =>
  [run.status, run.stuck_reason && `stuck: ${run.stuck_reason}`, run.orphan && 'orphan']
    .filter(Boolean)
    .join(', ')

const doing = ({ phase, saying }: Pick<Run, 'phase' | 'saying'>): string =>
  [phase, saying].filter(Boolean).join(': ')

/** Everything of a run that is said in a word or a line. */
export function runText(run: Run): string {
  const { resume_available } = run.metadata
  const { input_tokens, output_tokens } = run.usage
  const head = fields([
    ['run', run.run_id],
    ['agent', run.agent],
    ['status', statusOf(run)],
    ['detail', run.detail],
    ['doing', run.ended_at === null ? clipped(doing(run), 200) : null],
    ['conversation', run.conversation_id],
    ['parent', run.parent_run_id],
    ['forked from', run.forked_from?.checkpoint_id],
    ['lane', run.lane_key],
    ['queue', run.queue],
    ['surface', run.surface],
    ['owner', run.owner],
    ['created by', run.created_by],
    ['attempt', run.attempt],
    ['node', run.node_id],
    ['model', run.model],
    [
      'tokens',
      input_tokens + output_tokens > 0 ? `${input_tokens} in, ${output_tokens} out` : null,
    ],
    ['created', run.created_at],
    ['started', run.started_at],
    ['ended', run.ended_at],
    ['age', spoken(run.age_ms)],
    ['cancel', run.cancel && cancelText(run.cancel)],
    ['error', run.error_code && `${run.error_code}: ${run.error_message ?? ''}`],
    ['resume', resume_available === true ? `possible: runlane run resume ${run.run_id}` : null],
    ['no resume', run.status === 'completed' ? null : run.resume_blocker],
  ])
  return head + payload('input', run.input) + payload('output', run.output)
}

/** How far it has come, in the order in which it does. */
const cancelText = ({ reason, ...moments }: NonNullable<Run['cancel']>): string => {
  const steps = Object.entries(moments).flatMap(([name, moment]) =>
    moment === null ? [] : `${name} ${moment.at} by ${moment.by}`,
  )
  return [...steps, ...(reason === null ? [] : [`reason: ${reason}`])].join(', ')
}

const payload = (name: string, value: Json): string =>
  value === null ? '' : `${name}\n${indented(jsonBlock(value))}\n`

/** Runs under each other, the delegated ones indented below those that they work for. */
export function runTable(runs: readonly Family[]): string {
  const rows: Cell[][] = []
  const add = (run: Family, depth: number): void => {
    const { agent, detail, age_ms } = run
    rows.push([`${'  '.repeat(depth)}${run.run_id}`, agent, statusOf(run), detail, spoken(age_ms)])
    for (const child of run.subagents) add(child, depth + 1)
  }
  for (const run of runs) add(run, 0)
  return rows.length === 0 ? '  none\n' : table(['run', 'agent', 'status', 'detail', 'age'], rows)
}

/** One event on one line. */
export function eventLine({ sequence, event_type, payload: facts, created_at }: RunEvent): string {
  const line = [
    created_at,
    String(sequence).padStart(5),
    event_type.padEnd(20),
    summary(event_type, facts),
  ]
  return `${line.join('  ').trimEnd()}\n`
}

const SUMMARY_LENGTH = 160

function summary(type: string, facts: RunEvent['payload']): string {
  const text = (name: string): string => wordOf(facts[name] ?? null)
  if (type === 'run_status_changed') {
    const detail = facts['detail'] === null ? '' : ` (${text('detail')})`
    return clippedLine(`${text('from')} → ${text('to')}${detail}`)
  }
  if (type === 'message_delta' || type === 'message') return clippedLine(text('text'))
  const known = Object.entries(facts).filter(([, value]) => value !== null)
  return clippedLine(known.map(([name, value]) => `${name}=${wordOf(value)}`).join(' '))
}

const wordOf = (value: Json): string => {
  if (value === null) return '-'
  return typeof value === 'string' ? value : JSON.stringify(value)
}
const clippedLine = (text: string): string => printable(clipped(text, SUMMARY_LENGTH))

/** Where a conversation is, and after a bad end what somebody who takes over needs. */
export function agentStatusText(status: AgentStatus): string {
  const { handoff } = status
  const head = fields([
    ['conversation', status.conversation_id],
    ['run', status.run_id],
    ['agent', status.agent],
    ['status', status.status],
    ['detail', status.detail],
    ['stuck', status.stuck_reason],
    ['doing', clipped(doing(status), 200)],
    ['since', status.since],
    ['cancel', status.can_cancel ? `runlane run cancel ${status.run_id}` : null],
    ['resume', status.resume_available ? `runlane run resume ${status.run_id}` : null],
  ])
  if (handoff === null) return head
  const known = Object.entries({
    error: handoff.error_message,
    ...handoff.last_known_state,
    'to take over': handoff.handoff_next_action,
  }).flatMap(([name, text]) =>
    text === null ? [] : [`${name.replaceAll('_', ' ')}\n${indented(printableLines(text))}\n`],
  )
  return `${head}\n${printable(handoff.label)}\n${indented(known.join(''))}`
}
