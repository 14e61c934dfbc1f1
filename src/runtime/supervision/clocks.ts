import type { WatchdogClock } from '../../../machines/run-setup.ts'
import { formatDuration, parseDuration } from '../../duration.ts'
import type { RunStatus } from '../../store/rows.ts'
import type { CallVitals } from '../run/vitals.ts'

/** Limits in milliseconds. */
export interface WatchdogLimits {
  /** A short step (a chunk of reasoning, a change of phase) without progress. */
  reasoning: number
  /** A tool call without progress. */
  tool: number
  /** A whole turn: an attempt. */
  turn: number
  /** An executor without a sign of life. */
  executor: number
}

/** Limits that an agent or a run gives by itself, such as `"30s"`. */
export type OwnLimits = { [C in 'reasoning' | 'tool' | 'turn']?: string | undefined }

/** What the clocks read of a run; times are monotonic milliseconds. */
export interface Clocked {
  status: RunStatus
  /** Its executor has begun it: no clock counts before. */
  begun: boolean
  /** When its turn began, not counting what the clock of the turn leaves out. */
  turnSince: number
  /** How much longer its turn may take than the clock says. */
  turnExtraMs: number
  /** That comes on top of the limit, or of this time where it is later: its turn was over already when it was extended. */
  turnLimitFrom: number
  /** Since when it has not moved. */
  movedAt: number
  /** Tool calls in flight. */
  calls: readonly CallVitals[]
  /** Since its executor has shown a sign of life; 0 where it cannot be blocked. */
  executorSilentMs: number
  own: { readonly agent: OwnLimits; readonly run: OwnLimits }
}

/** What a clock has found. */
export interface Finding {
  clock: WatchdogClock
  stuck_reason: string
  tool_call_id: string | null
  limit_ms: number
  silentMs: number
}

/** How long a call that ends by a time-out of its own may take to do so. */
const ENDING_MS = 2_000

export function findingOf(run: Clocked, limits: WatchdogLimits, at: number): Finding | undefined {
  // It was asked to end: the clock of the cancel counts then.
  if (run.status === 'cancel_requested') return executorOf(run, limits)
  return turnOf(run, limits, at) ?? executorOf(run, limits) ?? silenceOf(run, limits, at)
}

/** The executor's own pulse answers, not the code in it: a thread in an endless loop has none. */
export function executorOf(run: Clocked, limits: WatchdogLimits): Finding | undefined {
  const { executorSilentMs: silentMs } = run
  const limit_ms = limits.executor
  if (!run.begun || silentMs <= limit_ms) return undefined
  return found('executor', 'executor.unresponsive', limit_ms, silentMs)
}

function turnOf(run: Clocked, limits: WatchdogLimits, at: number): Finding | undefined {
  // What it has delegated has clocks of its own, and so has whoever that waits for.
  if (!run.begun || run.status === 'waiting_on_child') return undefined
  const limit_ms = limitOf(run, 'turn', limits)
  const over = Math.max(run.turnSince + limit_ms, run.turnLimitFrom) + run.turnExtraMs
  if (at <= over) return undefined
  return found('turn', 'turn.timeout', limit_ms, at - run.turnSince)
}

function silenceOf(run: Clocked, limits: WatchdogLimits, at: number): Finding | undefined {
  if (!run.begun || run.status === 'waiting_on_child') return undefined
  if (run.status === 'waiting_on_tool') return callOf(run, limits, at)
  const limit_ms = limitOf(run, 'reasoning', limits)
  const silentMs = at - run.movedAt
  if (silentMs <= limit_ms) return undefined
  return found('reasoning', 'reasoning.no_progress', limit_ms, silentMs)
}

/** The call that has been silent for longest, of those that are so for too long. */
function callOf(run: Clocked, limits: WatchdogLimits, at: number): Finding | undefined {
  for (const call of run.calls.toSorted((a, b) => a.movedAt - b.movedAt)) {
    const { limit_ms, graceMs } = limitOfCall(run, call, limits)
    const silentMs = at - call.movedAt
    if (silentMs <= limit_ms + graceMs) continue
    const { tool_call_id } = call
    return { ...found('tool', 'tool_call.timeout', limit_ms, silentMs), tool_call_id }
  }
  return undefined
}

/** The later one counts: for all, of the agent, of the tool, of the run. */
function limitOfCall(
  run: Clocked,
  { timeout_ms }: CallVitals,
  limits: WatchdogLimits,
): { limit_ms: number; graceMs: number } {
  return timeout_ms === null || run.own.run.tool !== undefined
    ? { limit_ms: limitOf(run, 'tool', limits), graceMs: 0 }
    : { limit_ms: timeout_ms, graceMs: ENDING_MS }
}

/** What a run may take by this clock: as it says itself, or its agent, or else as all may. */
export function limitOf(
  { own }: Pick<Clocked, 'own'>,
  clock: keyof OwnLimits,
  limits: WatchdogLimits,
): number {
  const given = own.run[clock] ?? own.agent[clock]
  return given === undefined ? limits[clock] : parseDuration(given)
}

const found = (
  clock: WatchdogClock,
  what: string,
  limit_ms: number,
  silentMs: number,
): Finding => ({
  clock,
  stuck_reason: `${what}(${formatDuration(limit_ms)})`,
  tool_call_id: null,
  limit_ms,
  silentMs,
})
