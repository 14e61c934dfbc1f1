import { runMachine } from '../../../machines/run.ts'
import type { Delegation } from '../../agents/port.ts'
import type { RunDraft } from '../../store/flush.ts'
import type { HostedRow } from '../../store/rows.ts'
import { encodeChart, newChart } from './codec.ts'
import type { Letter } from './messages.ts'

const CHART = encodeChart(newChart(runMachine, { delayed: false, hold_lane_on_human: false }))

/** The run that a delegation makes: of the same conversation, queue and owner as its parent, in a lane of its own. */
export const childOf = (parent: HostedRow, child: Delegation): RunDraft => ({
  run_id: child.child_run_id,
  conversation_id: parent.conversation_id,
  parent_run_id: parent.run_id,
  root_run_id: parent.root_run_id,
  detached: child.detach,
  agent: child.agent,
  surface: 'child',
  created_by: parent.created_by,
  owner: parent.owner,
  lane_key: child.lane_key,
  lane_policy: 'enqueue',
  front: false,
  queue: parent.queue,
  priority: parent.priority,
  run_at: null,
  chart: CHART,
  idempotency_key: null,
  interrupt_command_id: null,
  input: child.input,
  metadata: {},
  options: { lanes_above: lanesOf(parent), ...inherited(parent, child) },
})

function inherited({ options }: HostedRow, child: Delegation): Partial<RunDraft['options']> {
  const { traceparent, above } = options
  const timeouts = { ...above?.timeouts, ...options.timeouts }
  const execution_timeout_override =
    options.execution_timeout_override ?? above?.execution_timeout_override ?? null
  const isPatient = Object.keys(timeouts).length > 0 || execution_timeout_override !== null
  return {
    ...(traceparent === undefined ? {} : { traceparent }),
    ...(child.timeouts === undefined ? {} : { timeouts: child.timeouts }),
    ...(isPatient ? { above: { timeouts, execution_timeout_override } } : {}),
  }
}

/** The lanes that this run and those above it hold, its own first. */
export const lanesOf = ({ lane_key, options }: HostedRow): string[] => [
  lane_key,
  ...(options.lanes_above ?? []),
]

/** The letter in which a child's end comes to its parent: consumed with the decision on it, so it counts once. */
export const reportLetter = (childRunId: string): Letter => ({
  kind: 'report',
  dedupe_key: `report:${childRunId}`,
  command_id: null,
  audit: { action: 'report', actor: childRunId, role: 'system', reason: null, request_id: null },
})
