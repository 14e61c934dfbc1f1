import { clip } from '../../clip.ts'
import { isTerminal, type RunStatus } from '../../store/rows.ts'
import type { WaitFacts } from '../../store/diagnosis.ts'
import { type Cause, cause, missing } from './cause.ts'
import { resumeBlocker } from '../run/resume.ts'

export interface Diagnosis {
  /** One plain sentence. */
  summary: string
  /** The chain: what the run waits for, then what that waits for. */
  causes: Cause[]
}

type Waiting = Exclude<RunStatus, 'completed' | 'failed' | 'cancelled' | 'timed_out'>
type Explain = (facts: WaitFacts) => Omit<Cause, 'run_id'>[]

/** How many runs a chain is followed. */
const CHAIN_MAX = 20

/**
 * Why a run is where it is. `read` gives the facts of a run, so that the chain can be followed; a run that waits for
 * itself is a `cycle`.
 */
export async function diagnose(
  runId: string,
  read: (runId: string) => Promise<WaitFacts | undefined>,
): Promise<Diagnosis | undefined> {
  const first = await read(runId)
  if (!first) return undefined
  if (isTerminal(first.status)) return { summary: endOf(first), causes: [] }
  const causes: Cause[] = []
  const seen = new Set<string>()
  const follow = async (facts: WaitFacts, above: readonly string[]): Promise<void> => {
    const { run_id } = facts
    seen.add(run_id)
    causes.push(...causesOf(facts).map((one) => ({ ...one, run_id })))
    for (const next of waitedFor(facts)) {
      if (next === run_id || above.includes(next)) {
        const evidence = `The chain of waiting runs comes back to ${next}: none of them can go on.`
        causes.push({ ...cause('cycle', evidence, 'cancel one of them'), run_id: next })
      } else if (!seen.has(next) && seen.size < CHAIN_MAX) {
        const found = await read(next)
        if (found) await follow(found, [...above, run_id])
      }
    }
  }
  await follow(first, [])
  return { summary: summaryOf(first, causes), causes }
}

/** The runs whose end, or whose lane, this one waits for. */
function waitedFor({ status, holder, open_children }: WaitFacts): string[] {
  if (status === 'waiting_on_lane') return holder ? [holder.run_id] : []
  if (status !== 'waiting_on_child' && status !== 'cancel_requested') return []
  return open_children.map((child) => child.run_id)
}

/** As much of an error message as a sentence holds. */
const REASON_LENGTH_MAX = 300

/** Why it ended, and whether it can go on. */
function endOf(facts: WaitFacts): string {
  const { status, error_code, error_message, unknown_calls } = facts
  const reasons = [error_code, error_message && clip(error_message, REASON_LENGTH_MAX)]
  const reason = reasons.filter(Boolean).join(': ')
  const end = `The run has ended: ${status}${reason === '' ? '' : ` (${reason})`}.`
  if (status === 'completed') return end
  const blocker = resumeBlocker(facts)
  if (blocker === null) return `${end} It can be resumed.`
  return blocker.startsWith('unknown_tool_call')
    ? `${end} It can be resumed by whoever says what became of ${unknown_calls.join(', ')} (resolutions).`
    : `${end} It cannot be resumed: ${blocker}.`
}

const causesOf = (facts: WaitFacts): Omit<Cause, 'run_id'>[] => {
  if (isTerminal(facts.status)) return []
  return EXPLAIN[facts.status as Waiting](facts)
}

/** By status, so that a new kind of waiting does not compile without an explanation. */
const EXPLAIN: Record<Waiting, Explain> = {
  waiting_on_lane: (facts) => laneCauses(facts),
  queued: (facts) => queuedCauses(facts),
  resuming: (facts) => activeCauses(facts, 'It reads its records, to go on from them.'),
  running: (facts) => activeCauses(facts, facts.phase ?? 'It works.'),
  waiting_on_tool: (facts) => {
    const [first] = facts.calls
    return [
      ...stuckCauses(facts),
      {
        ...cause(
          'tool.in_flight',
          `Waiting for ${callsOf(facts)}.`,
          'wait for it, or cancel the run',
        ),
        since: first?.started_at ?? facts.status_since,
        holder: first?.tool_call_id ?? null,
        current: facts.calls.length,
      },
      ...lostCauses(facts),
    ]
  },
  waiting_on_child: (facts) => [...stuckCauses(facts), ...childCauses(facts), ...lostCauses(facts)],
  waiting_on_human: (facts) => humanCauses(facts),
  cancel_requested: (facts) => [
    {
      ...cause(
        'cancel.unacknowledged',
        'It was asked to cancel and has not come to its next boundary.',
        'wait: it is ended hard after the cancel time-out',
      ),
      since: facts.cancel_requested_at,
      holder: facts.calls[0]?.tool_call_id ?? null,
    },
    ...(facts.open_child_count + facts.unreported.length > 0 ? childCauses(facts) : []),
    ...stuckCauses(facts),
    ...lostCauses(facts),
  ],
}

function laneCauses({ holder, ahead, lane_key, status_since }: WaitFacts): Omit<Cause, 'run_id'>[] {
  // The commit that frees a lane gives its turn away: a free lane with runs in line was never handed over.
  if (!holder)
    return [missing(`The lane ${lane_key} is free, and nobody was given its turn.`, status_since)]
  const evidence = `The lane ${lane_key} is held by ${holder.run_id}, which is ${holder.status}; ${ahead} ahead in line.`
  return [
    {
      ...cause('lane.held_by', evidence, `wait for ${holder.run_id}, or stop it`),
      since: status_since,
      holder: holder.run_id,
      current: ahead,
    },
  ]
}

function humanCauses({ questions, letters, status_since }: WaitFacts): Omit<Cause, 'run_id'>[] {
  if (questions.length > 0)
    return questions.map(({ token_id, kind, name, prompt, created_at }) => ({
      ...(kind === 'signal'
        ? cause('signal.waiting', prompt, `send it: POST /runs/{run_id}/signal {"name": "${name}"}`)
        : cause('human.waiting', prompt, 'answer it: POST /runs/{run_id}/respond')),
      since: created_at,
      holder: token_id,
    }))
  if (letters === 0)
    return [missing('It is parked without an open question.', status_since, 'cancel it')]
  const evidence = 'Its question is answered, and the answer is on its way to it.'
  return [{ ...cause('human.waiting', evidence, 'wait: it comes in seconds'), since: status_since }]
}

function queuedCauses({
  run_at,
  due,
  holds_lane,
  status_since,
  queue,
  serving,
}: WaitFacts): Omit<Cause, 'run_id'>[] {
  if (!holds_lane && run_at === null)
    return [missing('It is next in its lane, and does not hold it.', status_since)]
  if (!holds_lane && !(due && serving === 0)) {
    const evidence = due
      ? `It was due at ${run_at}, and is about to join its lane.`
      : `It is not to begin before ${run_at}.`
    return [
      { ...cause('not_before', evidence, due ? null : 'wait, or cancel it'), since: status_since },
    ]
  }
  const causes: Omit<Cause, 'run_id'>[] = []
  if (queue.paused) {
    const why = queue.paused_reason === null ? '' : `: ${queue.paused_reason}`
    const evidence = `The queue ${queue.name} was paused by ${queue.paused_by ?? 'somebody'}${why}.`
    causes.push({
      ...cause('queue.paused', evidence, `resume the queue ${queue.name}`),
      since: queue.paused_at,
      holder: queue.paused_by,
    })
  }
  if (queue.concurrency !== null && queue.active >= queue.concurrency)
    causes.push({
      ...cause(
        'queue.at_capacity',
        `The queue ${queue.name} runs as many as it may.`,
        `raise the concurrency of ${queue.name}`,
      ),
      since: status_since,
      limit: queue.concurrency,
      current: queue.active,
    })
  if (serving === 0)
    causes.push({
      ...cause('queue.no_node', 'No node serves.', 'start a node'),
      since: status_since,
      current: 0,
    })
  if (causes.length > 0) return causes
  const evidence = `It has the turn of its lane; ${serving} nodes serve, and none had a free slot yet.`
  return [
    {
      ...cause('queue.at_capacity', evidence, 'start a node, or raise RUNLANE_CONCURRENCY'),
      since: status_since,
      current: queue.active,
    },
  ]
}

function childCauses(facts: WaitFacts): Omit<Cause, 'run_id'>[] {
  const { open_children, open_child_count, unreported, status_since } = facts
  const lost = unreported.map((child) => ({
    ...missing(`${child} has ended, and its report is neither here nor on its way.`, status_since),
    holder: child,
  }))
  const [first] = open_children
  if (!first && lost.length > 0) return lost
  const named = first
    ? `${first.run_id} (${first.agent}), which is ${first.status}`
    : 'a report of a run that has ended'
  const others = open_child_count > 1 ? `, and for ${open_child_count - 1} more` : ''
  const action = first ? `wait for ${first.run_id}, or interrupt it` : 'wait: it comes in seconds'
  return [
    ...lost,
    {
      ...cause('child.waiting', `Waiting for ${named}${others}.`, action),
      since: status_since,
      holder: first?.run_id ?? null,
      current: open_child_count,
    },
  ]
}

function activeCauses(facts: WaitFacts, evidence: string): Omit<Cause, 'run_id'>[] {
  const bad = [...stuckCauses(facts), ...lostCauses(facts)]
  if (bad.length > 0) return bad
  return [{ ...cause('progressing', evidence, null), since: facts.last_progress_at }]
}

/** What the watchdog found. */
function stuckCauses(facts: WaitFacts): Omit<Cause, 'run_id'>[] {
  const { stuck_reason, stuck_since } = facts
  if (stuck_reason === null) return []
  const gate = stuck_reason.startsWith('turn.')
    ? 'turn.exceeded'
    : stuck_reason.startsWith('executor.')
      ? 'executor.unresponsive'
      : stuck_reason.startsWith('tool_call.')
        ? 'tool.in_flight'
        : 'model.no_progress'
  const action =
    gate === 'turn.exceeded' ? 'extend it, stop it or recycle it' : 'stop it or recycle it'
  const what = gate === 'tool.in_flight' ? `its call of ${callsOf(facts)}` : 'it'
  const evidence = `The watchdog found ${what} stuck: ${stuck_reason}.`
  return [{ ...cause(gate, evidence, action), since: stuck_since }]
}

const callsOf = ({ calls, tool }: WaitFacts): string =>
  calls.map((call) => call.tool).join(', ') || tool || 'a tool'

function lostCauses({ owner }: WaitFacts): Omit<Cause, 'run_id'>[] {
  if (owner && owner.status !== 'dead' && owner.status !== 'stopped' && !owner.lease_over) return []
  const evidence = owner
    ? `Its node ${owner.node_id} was seen last at ${owner.last_seen_at}.`
    : 'No node hosts it.'
  const action = 'wait: another node takes it over within seconds'
  return [
    {
      ...cause('node.lost', evidence, action),
      since: owner?.last_seen_at ?? null,
      holder: owner?.node_id ?? null,
    },
  ]
}

/** What the run waits for, and at the end of the chain what that waits for. */
function summaryOf(facts: WaitFacts, causes: Cause[]): string {
  const own = causes.find(({ run_id }) => run_id === facts.run_id)
  const last = causes.findLast(({ gate }) => gate !== 'progressing' || causes.length === 1) ?? own
  if (!own) return `The run is ${facts.status}.`
  if (own.gate === 'progressing') return `The run makes progress: ${own.evidence}`
  const beyond = last && last.run_id !== facts.run_id ? ` There: ${last.evidence}` : ''
  return `The run is ${facts.status}: ${own.evidence}${beyond}`
}
