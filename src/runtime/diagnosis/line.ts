import { type Finding, finding, missing } from './cause.ts'
import { endOfLine, type Facts } from './clocks.ts'

/** A status as a sentence says it, with what the watchdog has found. */
export const standing = ({
  status,
  stuck_reason,
}: {
  status: string
  stuck_reason: string | null
}): string => (stuck_reason === null ? status : `${status} and stuck`)

/** Why it is in the line of its lane. */
export function laneCauses(facts: Facts): Finding[] {
  const { holder, ahead, lane_key, status_since } = facts
  // The commit that frees a lane gives its turn away: a free lane with runs in line was never handed over.
  if (!holder)
    return [missing(`The lane ${lane_key} is free, and nobody was given its turn.`, status_since)]
  const evidence = `The lane ${lane_key} is held by ${holder.run_id}, which is ${standing(holder)}; ${ahead} ahead in line.`
  return [
    finding('lane.held_by', evidence, `wait for ${holder.run_id}, or stop it`, {
      since: status_since,
      deadline: endOfLine(facts),
      holder: holder.run_id,
      current: ahead,
    }),
  ]
}

/** Why nobody has picked it up. */
export function queuedCauses(facts: Facts): Finding[] {
  const { run_at, due, holds_lane, status_since, serving } = facts
  if (!holds_lane && run_at === null)
    return [missing('It is next in its lane, and does not hold it.', status_since)]
  if (!holds_lane && !(due && serving === 0)) {
    const evidence = due
      ? `It was due at ${run_at}, and is about to join its lane.`
      : `It is not to begin before ${run_at}.`
    const when = { since: status_since, deadline: run_at }
    return [finding('not_before', evidence, due ? null : 'wait, or cancel it', when)]
  }
  const found = [...queueCauses(facts), ...nodeCauses(facts)]
  return found.length > 0 ? found : [slotCause(facts)]
}

function queueCauses(facts: Facts): Finding[] {
  const { queue, status_since } = facts
  const causes: Finding[] = []
  if (queue.paused) {
    const why = queue.paused_reason === null ? '' : `: ${queue.paused_reason}`
    const evidence = `The queue ${queue.name} was paused by ${queue.paused_by ?? 'somebody'}${why}.`
    const by = { since: queue.paused_at, holder: queue.paused_by }
    causes.push(finding('queue.paused', evidence, `resume the queue ${queue.name}`, by))
  }
  if (queue.concurrency !== null && queue.active >= queue.concurrency) {
    const evidence = `The queue ${queue.name} runs as many as it may.`
    causes.push(
      finding('queue.at_capacity', evidence, `raise the concurrency of ${queue.name}`, {
        since: status_since,
        deadline: endOfLine(facts),
        holder: queue.name,
        limit: queue.concurrency,
        current: queue.active,
      }),
    )
  }
  return causes
}

function nodeCauses(facts: Facts): Finding[] {
  const { serving, status_since } = facts
  if (serving > 0) return []
  const since = { since: status_since, deadline: endOfLine(facts), current: 0 }
  return [finding('queue.no_node', 'No node serves.', 'start a node', since)]
}

/** Its queue has room, and the nodes have not. How many each takes is its own setting: that of the asked one is told. */
function slotCause(facts: Facts): Finding {
  const { serving, active, rules, status_since } = facts
  const limit = serving * rules.concurrency
  const clock = { since: status_since, deadline: endOfLine(facts), limit, current: active }
  const more = 'start a node, or raise RUNLANE_CONCURRENCY'
  if (active < limit) {
    const evidence = 'It has the turn of its lane, and is about to be picked up.'
    return finding('queue.at_capacity', evidence, more, clock)
  }
  const nodes = serving === 1 ? '1 node serves' : `${serving} nodes serve`
  const evidence = `It has the turn of its lane, and no node had a free slot yet: ${nodes}, with ${rules.concurrency} runs each if all have the RUNLANE_CONCURRENCY of this one.`
  const slot = slotOf(facts)
  return finding(
    'queue.at_capacity',
    [evidence, slot?.evidence].filter(Boolean).join(' '),
    [slot?.action, more].filter(Boolean).join(', '),
    { ...clock, holder: slot?.run_id ?? null },
  )
}

/** The run that should leave its slot next, and what makes it do so. */
function slotOf({ slot_holder: holder }: Facts) {
  if (!holder) return undefined
  const { run_id, agent, stuck_reason, started_at } = holder
  const named = `${run_id} (${agent}), which is ${standing(holder)}`
  return stuck_reason === null
    ? {
        run_id,
        evidence: `The first that began is ${named}, at ${started_at}.`,
        action: `wait for ${run_id} or stop it`,
      }
    : {
        run_id,
        evidence: `One is taken by ${named}: ${stuck_reason}.`,
        action: `stop or recycle ${run_id}`,
      }
}
