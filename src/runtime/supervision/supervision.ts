import type { Database } from '../../store/database.ts'
import {
  giveTurnBack,
  lateInLine,
  openBelow,
  repairLanes,
  repeatReports,
  seizeRuns,
  setSystemic,
  silentRuns,
  staleCancels,
  takeTurn,
} from '../../store/reconcile.ts'
import { forgetReadings, noteReadings, readLately } from '../../store/readers.ts'
import { loadHostedMany, ownedRunIds } from '../../store/runs.ts'
import type { Clock } from '../../clock.ts'
import { newRecordId } from '../../ids.ts'
import { Audience } from './audience.ts'
import type { Committer } from '../commit/committer.ts'
import { ForcedEnds } from './forced-ends.ts'
import type { Host } from '../run/host.ts'
import type { Lease } from '../lease.ts'
import type { Logger } from '../log.ts'
import type { Mailroom } from '../commands/mailroom.ts'
import { Readers } from './readers.ts'
import { type Found, Reconciler } from './reconciler.ts'
import { rulesOf } from './rules.ts'
import { Supervisor } from './supervisor.ts'
import { WATCHDOG } from '../run/verdicts.ts'
import { watchedOf } from '../run/watched.ts'
import type { WatchdogRules } from './clocks.ts'
import { Watchdog } from './watchdog.ts'

export interface SupervisionOptions {
  nodeId: string
  database: Database
  /** Known once the node is composed: the supervisor is the root of its system, and so comes first. */
  parts: () => { host: Host; mailroom: Mailroom; committer: Committer; lease: Lease }
  watchdog: WatchdogRules & { intervalMs: number }
  reconcileIntervalMs: number
  orphanGraceMs: number
  heartbeatTimeoutMs: number
  queueTimeoutMs: number
  cancelTimeoutMs: number
  clock: Clock
  log: Logger
}

/** How often a node vouches for its runs, at most; several times within the heartbeat time-out. */
export const beatEveryMs = (heartbeatTimeoutMs: number): number =>
  Math.min(60_000, heartbeatTimeoutMs / 3)

/** How often who reads is told and asked. */
const ASK_MS_MAX = 5_000

/** The supervisor of a node with its watchdog and its reconciler, and the readers that it asks. */
export function supervisorOf(options: SupervisionOptions): {
  supervisor: Supervisor
  readers: Readers
  forcedEnds: ForcedEnds
} {
  const { database, parts, clock, log, watchdog, nodeId, orphanGraceMs } = options
  const sql = database.runtime
  const epoch = (): number => parts().lease.epoch
  const forcedEnds = new ForcedEnds({
    ...options,
    epoch,
    loadRuns: (runIds) => loadHostedMany(sql, runIds),
    loadBelow: (runId) => openBelow(sql, runId),
    seizeRuns: (runIds, version) => seizeRuns(sql, runIds, epoch(), version),
  })
  const end: ForcedEnds['end'] = (runId, version, messages) =>
    forcedEnds.end(runId, version, messages)

  /** By the memory of this node, and by the rows that the database gives to it. */
  const unreported = async (limit: number): Promise<Found> => {
    const { host, committer, lease } = parts()
    const known = [...host.runs].flatMap((one) => (one.isUnreported ? one.ledger.runId : []))
    const owned = await ownedRunIds(sql, lease.epoch)
    await committer.settled()
    const rows = await loadHostedMany(
      sql,
      owned.filter((runId) => !host.has(runId)),
    )
    await committer.settled()
    // A claim, or an adoption, of which the answer was lost is begun by the lookout.
    const lost = rows.filter(
      (row) =>
        row.owner_epoch === lease.epoch &&
        row.record_id !== null &&
        row.record_id !== 'adopted' &&
        !host.has(row.run_id) &&
        !forcedEnds.isEnding(row.run_id),
    )
    const late = [...known, ...lost.map((row) => row.run_id)].map((run_id) => {
      return { run_id, version: 0, age_ms: 0 }
    })
    return { late: late.slice(0, limit), runs: late.length, of: owned.length }
  }

  const rules = rulesOf({
    ...options,
    vouchMs: 2 * beatEveryMs(options.heartbeatTimeoutMs),
    reachableForMs: () => parts().lease.reachableForMs,
    silentRuns: (limitMs, limit) => silentRuns(sql, limitMs, limit),
    lateInLine: (limitMs, limit) => lateInLine(sql, limitMs, limit),
    staleCancels: (limitMs, limit) => staleCancels(sql, limitMs, limit),
    unreported,
    recoverResult: async (runId) => {
      const hosted = parts().host.find(runId)
      return hosted !== undefined && (!hosted.isUnreported || hosted.recoverResult())
    },
    repairLanes: async (limit) => {
      const drift = await repairLanes(sql, limit, true)
      if (drift.leaked.length + drift.dropped.length + drift.idle.length === 0) return drift
      return repairLanes(sql, limit, false)
    },
    repeatReports: async (limit) => {
      const parents = await repeatReports(sql, limit)
      await parts().mailroom.round(parents)
      return parents
    },
    end,
  })
  const reconciler = new Reconciler({
    rules,
    takeTurn: () => takeTurn(sql, epoch()),
    giveTurnBack: () => giveTurnBack(sql, epoch()),
    log,
  })
  const { monotonicMs } = clock
  const readers = new Readers({
    noteReadings: (readings) => noteReadings(sql, epoch(), readings),
    readLately: (keys, withinMs) => readLately(sql, keys, withinMs),
    forgetReadings: (olderThanMs) => forgetReadings(sql, olderThanMs),
    keepMs: orphanGraceMs,
    monotonicMs,
  })
  const runs = () => [...parts().host.runs].flatMap((one) => one.performing(monotonicMs()) ?? [])
  const supervisor = new Supervisor({
    watchdog: new Watchdog({
      runs: () => [...parts().host.runs].map((one) => watchedOf(one, monotonicMs())),
      ...watchdog,
      isAway: () => parts().lease.reachableForMs === 0,
      end: (runId, messages) =>
        end(runId, null, messages).catch((error: unknown) =>
          log.warn({ run_id: runId, problem: String(error) }, 'a stuck run could not be ended yet'),
        ),
      ...clock,
    }),
    reconciler,
    audience: new Audience({ nodeId, runs, readers, graceMs: orphanGraceMs, monotonicMs }),
    lookEveryMs: watchdog.intervalMs,
    askEveryMs: Math.min(ASK_MS_MAX, orphanGraceMs / 3),
    reconcileEveryMs: options.reconcileIntervalMs,
    monotonicMs,
    tellSystemic: (what) => {
      if (what === null) log.info({}, 'the supervisor holds fire no more')
      else log.warn({ systemic: what }, 'too many runs would be ended at once: none is')
      setSystemic(sql, epoch(), what).catch(() => {})
      if (what === null) return
      parts().committer.audit({
        ...WATCHDOG,
        audit_key: newRecordId(),
        action: 'watchdog.systemic',
        target: `node ${epoch()}`,
        run_id: null,
        reason: what,
        outcome: 'applied',
        code: 'systemic',
        request_id: null,
        before: null,
        after: null,
      })
    },
    log,
  })
  return { supervisor, readers, forcedEnds }
}
