import { type Finding, finding, missing } from './cause.ts'
import { ageMs, cancelClock, type Facts, spared, stuckClock, watchdogClock } from './clocks.ts'
import { standing } from './line.ts'

/** Of a run that works by itself: what is wrong, or else how it gets on. */
export function workingCauses(facts: Facts, doing: string): Finding[] {
  const bad = [...stuckCauses(facts), ...lostCauses(facts)]
  if (bad.length > 0) return bad
  const { reason, call: _call, ...clock } = watchdogClock(facts) ?? {}
  const next = reason === undefined ? NOT_BEGUN : nextDeadline(reason)
  const more = { since: facts.last_progress_at, holder: facts.owner?.node_id ?? null, ...clock }
  return [finding('progressing', `${doing.replace(/\.$/, '')}.${next}`, null, more)]
}

const NOT_BEGUN = ' Its executor is about to begin it: no clock counts before.'
const nextDeadline = (reason: string): string => ` Its next deadline: ${reason}.`

export function toolCauses(facts: Facts): Finding[] {
  const { calls, status_since, stuck_reason } = facts
  const trouble = [...stuckCauses(facts), ...lostCauses(facts)]
  // A call that is stuck is told of once.
  if (stuck_reason !== null && stuckClock(stuck_reason) === 'tool') return trouble
  // Where something is wrong already, nobody waits for the next clock.
  const clock = trouble.length === 0 ? watchdogClock(facts) : null
  const call = calls.find((one) => one.tool_call_id === clock?.call) ?? calls[0]
  const next = clock ? nextDeadline(clock.reason) : ''
  const waiting = finding(
    'tool.in_flight',
    `Waiting for ${callsOf(facts)}.${next}`,
    'wait for it, or cancel the run',
    {
      since: call?.started_at ?? status_since,
      holder: call?.tool_call_id ?? null,
      ...(clock && { limit: clock.limit, current: clock.current, deadline: clock.deadline }),
    },
  )
  return [...trouble, waiting]
}

export const waitingOnChildCauses = (facts: Facts): Finding[] => [
  ...stuckCauses(facts),
  ...childCauses(facts),
  ...lostCauses(facts),
]

export function cancelCauses(facts: Facts): Finding[] {
  const { cancel_requested_at, calls, open_child_count, unreported } = facts
  return [
    finding(
      'cancel.unacknowledged',
      'It was asked to cancel and has not come to its next boundary.',
      'wait: it is ended hard after the cancel time-out',
      {
        since: cancel_requested_at,
        holder: calls[0]?.tool_call_id ?? facts.owner?.node_id ?? null,
        ...cancelClock(facts),
      },
    ),
    ...(open_child_count + unreported.length > 0 ? childCauses(facts) : []),
    ...stuckCauses(facts),
    ...lostCauses(facts),
  ]
}

function childCauses(facts: Facts): Finding[] {
  const { open_children, open_child_count, unreported, status_since } = facts
  const lost = unreported.map((child) => ({
    ...missing(`${child} has ended, and its report is neither here nor on its way.`, status_since),
    holder: child,
  }))
  const [first] = open_children
  if (!first && lost.length > 0) return lost
  const named = first
    ? `${first.run_id} (${first.agent}), which is ${standing(first)}`
    : 'a report of a run that has ended'
  const others = open_child_count > 1 ? `, and for ${open_child_count - 1} more` : ''
  const action = first ? `wait for ${first.run_id}, or interrupt it` : 'wait: it comes in seconds'
  return [
    ...lost,
    finding('child.waiting', `Waiting for ${named}${others}.`, action, {
      since: status_since,
      holder: first?.run_id ?? null,
      current: open_child_count,
    }),
  ]
}

const GATE_OF = {
  turn: 'turn.exceeded',
  executor: 'executor.unresponsive',
  tool: 'tool.in_flight',
  reasoning: 'model.no_progress',
} as const

/** What the watchdog found. */
function stuckCauses(facts: Facts): Finding[] {
  const { stuck_reason, stuck_since, stuck_call, owner } = facts
  if (stuck_reason === null) return []
  const gate = GATE_OF[stuckClock(stuck_reason)]
  const action =
    gate === 'turn.exceeded' ? 'extend it, stop it or recycle it' : 'stop it or recycle it'
  const isCall = gate === 'tool.in_flight'
  const calls = facts.calls.filter((one) => stuck_call === null || one.tool_call_id === stuck_call)
  const what = isCall ? `its call of ${callsOf({ ...facts, calls })}` : 'it'
  const held = spared(facts, stuck_reason)
  const holds =
    held === null
      ? ''
      : ` Its node ends none of these at present, since they are too many at once (${held}).`
  const { limit = null, current = null, deadline = null } = watchdogClock(facts) ?? {}
  return [
    finding(gate, `The watchdog found ${what} stuck: ${stuck_reason}.${holds}`, action, {
      since: stuck_since,
      holder: (isCall ? calls[0]?.tool_call_id : owner?.node_id) ?? null,
      ...{ limit, current, deadline: held === null ? deadline : null },
      severity: isCall ? 'model.no_progress' : gate,
    }),
  ]
}

const callsOf = ({ calls, tool }: Facts): string =>
  calls.map((call) => call.tool).join(', ') || tool || 'a tool'

/** Its node is lost, or it has none. */
function lostCauses(facts: Facts): Finding[] {
  const { owner, serving, rules } = facts
  if (owner && owner.status !== 'dead' && owner.status !== 'stopped' && !owner.lease_over) return []
  const evidence = owner
    ? `Its node ${owner.node_id} was seen last at ${owner.last_seen_at}.`
    : 'No node hosts it.'
  const becomes =
    rules.recovery === 'auto'
      ? 'takes it over'
      : 'makes it timed_out, to be resumed (RUNLANE_RECOVERY=manual)'
  const action =
    serving === 0
      ? `start a node, which ${becomes}`
      : `wait: another node ${becomes} within seconds`
  return [
    finding('node.lost', evidence, action, {
      since: owner?.last_seen_at ?? null,
      holder: owner?.node_id ?? null,
      limit: owner?.lease_ms ?? null,
      current: owner ? ageMs(facts, owner.last_seen_at) : null,
    }),
  ]
}
