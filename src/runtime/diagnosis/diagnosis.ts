import { isTerminal, type RunStatus } from '../../store/rows.ts'
import type { WaitFacts } from '../../store/diagnosis.ts'
import { cancelCauses, toolCauses, waitingOnChildCauses, workingCauses } from './active.ts'
import { type Cause, type Finding, finding, missing, worstFirst } from './cause.ts'
import type { Facts, Rules } from './clocks.ts'
import { endOf } from './end.ts'
import type { Gate } from './gates.ts'
import { laneCauses, queuedCauses, standing } from './line.ts'

export interface Diagnosis {
  /** One plain sentence. */
  summary: string
  /** The chain: what the run waits for, then what that waits for; of each run the worst first. */
  causes: Cause[]
}

export interface DiagnosisSources {
  /** The facts of a run, so that the chain can be followed. */
  read: (runId: string) => Promise<WaitFacts | undefined>
  rules: Rules
}

/** A finding and the run that it is about. */
type Found = Finding & Pick<Cause, 'run_id'>
type Waiting = Exclude<RunStatus, 'completed' | 'failed' | 'cancelled' | 'timed_out'>

/** How many runs a chain is followed. */
const CHAIN_MAX = 20

/** Why a run is where it is; a run that waits for itself is a `cycle`. Undefined: there is no such run. */
export async function diagnose(
  runId: string,
  { read, rules }: DiagnosisSources,
): Promise<Diagnosis | undefined> {
  const first = await read(runId)
  if (!first) return undefined
  if (isTerminal(first.status)) return { summary: endOf(first), causes: [] }
  const found: Found[] = []
  const seen = new Set<string>()
  const follow = async (facts: WaitFacts, above: readonly WaitFacts[]): Promise<void> => {
    const { run_id } = facts
    seen.add(run_id)
    const own = worstFirst(causesOf({ ...facts, rules }))
    found.push(...own.map((one) => ({ ...one, run_id })))
    const chain = [...above, facts]
    for (const next of waitedFor(facts)) {
      const back = chain.findIndex((one) => one.run_id === next)
      if (back >= 0) {
        const evidence = `The chain of waiting runs comes back to ${next}: none of them can go on.`
        const action = `cancel ${leastOf(chain.slice(back)).run_id}`
        found.push({ ...finding('cycle', evidence, action), run_id: next })
      } else if (!seen.has(next) && seen.size < CHAIN_MAX) {
        const there = await read(next)
        if (there) await follow(there, chain)
      }
    }
  }
  await follow(first, [])
  return { summary: summaryOf(first, found), causes: found.map(causeOf) }
}

/** Of runs in a circle the one whose end costs least: of those that stand in line for a lane, one that has not begun. */
function leastOf(circle: readonly WaitFacts[]): WaitFacts {
  const inLine = circle.filter(({ status }) => status === 'waiting_on_lane')
  const [first = circle[0] as WaitFacts] = inLine.toSorted((a, b) => a.attempt - b.attempt)
  return first
}

const causeOf = ({ severity: _severity, ...cause }: Found): Cause => cause

/** The runs whose end, or whose lane, this one waits for. */
function waitedFor({ status, holder, open_children }: WaitFacts): string[] {
  if (status === 'waiting_on_lane') return holder ? [holder.run_id] : []
  if (status !== 'waiting_on_child' && status !== 'cancel_requested') return []
  return open_children.map((child) => child.run_id)
}

const causesOf = (facts: Facts): Finding[] =>
  isTerminal(facts.status) ? [] : EXPLAIN[facts.status as Waiting](facts)

/** By status, so that a new kind of waiting does not compile without an explanation. */
const EXPLAIN: Record<Waiting, (facts: Facts) => Finding[]> = {
  waiting_on_lane: laneCauses,
  queued: queuedCauses,
  resuming: (facts) => workingCauses(facts, 'It reads its records, to go on from them'),
  running: (facts) => workingCauses(facts, facts.phase ?? 'It works'),
  waiting_on_tool: toolCauses,
  waiting_on_child: waitingOnChildCauses,
  waiting_on_human: humanCauses,
  cancel_requested: cancelCauses,
}

function questionCause(question: Facts['questions'][number]): Finding {
  const { token_id, kind, name, prompt, created_at, expires_at } = question
  const more = { since: created_at, deadline: expires_at, holder: token_id }
  if (kind === 'signal')
    return finding(
      'signal.waiting',
      prompt,
      `send it: POST /runs/{run_id}/signal {"name": "${name}"}`,
      more,
    )
  return finding('human.waiting', prompt, 'answer it: POST /runs/{run_id}/respond', {
    ...more,
    // Nothing but a word of a human brings the run on, and nobody may guess it.
    severity: kind === 'unknown_tool_call' ? 'waker.missing' : 'human.waiting',
  })
}

function humanCauses({ questions, letters, status_since }: Facts): Finding[] {
  if (questions.length > 0) return questions.map(questionCause)
  if (letters === 0)
    return [missing('It is parked without an open question.', status_since, 'cancel it')]
  const evidence = 'Its question is answered, and the answer is on its way to it.'
  return [finding('human.waiting', evidence, 'wait: it comes in seconds', { since: status_since })]
}

/** They only point at the next run of the chain. */
const POINTS_ON: ReadonlySet<Gate> = new Set(['child.waiting', 'lane.held_by'])

/** The worst of what the run waits for, and the worst of what is at the end of its chain. */
function summaryOf(facts: WaitFacts, found: readonly Found[]): string {
  const [own] = found.filter(({ run_id }) => run_id === facts.run_id)
  if (!own) return `The run is ${facts.status}.`
  if (own.gate === 'progressing') return `The run makes progress: ${own.evidence}`
  const isSaid = facts.stuck_reason !== null && own.evidence.includes(facts.stuck_reason)
  const told = isSaid ? facts.status : standing(facts)
  const beyond = found.filter((one) => one.run_id !== facts.run_id || one.gate === 'cycle')
  const ends = beyond.filter(({ gate }) => !POINTS_ON.has(gate))
  // Of those that are as bad the one that is furthest away: it holds up the others.
  const [worst] = worstFirst((ends.length > 0 ? ends : beyond).toReversed())
  return `The run is ${told}: ${own.evidence}${worst ? ` ${placeOf(worst, own)}: ${worst.evidence}` : ''}`
}

const placeOf = (there: Found, own: Found): string =>
  there.run_id === own.holder ? 'There' : `At ${there.run_id}`
