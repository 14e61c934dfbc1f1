import type { Drift, Late } from '../../store/reconcile.ts'
import type { RunMessage } from '../run/messages.ts'
import { staleCancel, verdictOf } from '../run/verdicts.ts'
import type { Found, Rule } from './reconciler.ts'

export interface RulesOptions {
  heartbeatTimeoutMs: number
  queueTimeoutMs: number
  cancelTimeoutMs: number
  /** So long must every node have been able to vouch for its runs before silence means anything. */
  vouchMs: number
  /** For how long the database has answered this node without a break. */
  reachableForMs: () => number
  silentRuns: (limitMs: number, limit: number) => Promise<Found>
  lateInLine: (limitMs: number, limit: number) => Promise<Late[]>
  staleCancels: (limitMs: number, limit: number) => Promise<Late[]>
  /** Runs that the database gives to this node and that its executors do not know. */
  unreported: (limit: number) => Promise<Found>
  /** Asks the executor for the result of such a run; true when the run has it now, or is not so any more. */
  recoverResult: (runId: string) => Promise<boolean>
  repairLanes: (limit: number) => Promise<Drift>
  /** Writes the letters that parents wait for and that are not there; answers for which runs. */
  repeatReports: (limit: number) => Promise<string[]>
  end: (runId: string, version: number | null, messages: RunMessage[]) => Promise<boolean>
}

const NOBODY: Found = { late: [], runs: 0, of: 0 }
/** What is found is dealt with, however much it is. */
const found = (late: Late[]): Found => ({ late, runs: late.length, of: late.length })

const named = (run_id: string): Late => ({ run_id, version: 0, age_ms: 0 })

/** The rules of a pass, in their order. */
export function rulesOf(options: RulesOptions): Rule[] {
  const { heartbeatTimeoutMs, queueTimeoutMs, cancelTimeoutMs, vouchMs, reachableForMs } = options
  const { silentRuns, lateInLine, staleCancels, unreported, end } = options
  return [
    {
      name: 'heartbeat',
      exempt: false,
      find: async (limit, steadyMs) =>
        Math.min(steadyMs, reachableForMs()) < vouchMs
          ? NOBODY
          : silentRuns(heartbeatTimeoutMs, limit),
      act: (late) => {
        const verdict = verdictOf(
          'time_out',
          'heartbeat',
          'heartbeat.lost',
          heartbeatTimeoutMs,
          late,
        )
        return end(late.run_id, late.version, [
          { type: 'verdict.noted', verdict },
          {
            type: 'attempt.lost',
            reason: verdict.stuck_reason,
            recovery: 'manual',
            max_crashes: Number.MAX_SAFE_INTEGER,
            forced: true,
          },
        ])
      },
    },
    {
      name: 'queue',
      exempt: true,
      find: async (limit) => found(await lateInLine(queueTimeoutMs, limit)),
      act: (late) => {
        const verdict = verdictOf('queue_timeout', 'queue', 'queue.timeout', queueTimeoutMs, late)
        return end(late.run_id, late.version, [
          { type: 'queue.expired', limit_ms: queueTimeoutMs, verdict },
        ])
      },
    },
    {
      name: 'cancel',
      exempt: true,
      find: async (limit) => found(await staleCancels(cancelTimeoutMs, limit)),
      act: (late) => end(late.run_id, late.version, staleCancel(cancelTimeoutMs, late.age_ms)),
    },
    {
      name: 'unreported',
      exempt: false,
      find: unreported,
      act: async (late) => {
        if (await options.recoverResult(late.run_id)) return true
        const verdict = verdictOf('recover', 'report', 'result.unreported', 0, late)
        return end(late.run_id, null, [
          { type: 'verdict.noted', verdict },
          { type: 'run.failed', code: 'result_unreported', message: UNREPORTED },
        ])
      },
    },
    {
      name: 'lanes',
      exempt: true,
      find: async (limit) => {
        const { leaked, dropped, idle } = await options.repairLanes(limit)
        const names = [...leaked, ...dropped, ...idle]
        return found(names.map(named))
      },
      // Found and repaired in one statement, under the lock of the commits.
      act: async () => true,
    },
    {
      name: 'report',
      exempt: true,
      find: async (limit) => found((await options.repeatReports(limit)).map(named)),
      act: async () => true,
    },
  ]
}

const UNREPORTED = 'Execution completed on agent but status not reported — recovered by watchdog'
