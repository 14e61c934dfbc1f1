import { createHash } from 'node:crypto'
import { createActor, type SnapshotFrom } from 'xstate'
import { RUN_MACHINE_VERSION, type RunMachine } from '../../../machines/run.ts'
import type { RunEvent, RunInput } from '../../../machines/run-setup.ts'
import { canonicalJson, type Json } from '../../json.ts'
import type { EncodedChart, RunStatus } from '../../store/rows.ts'
import { transitionOf } from './decide.ts'

export type RunSnapshot = SnapshotFrom<RunMachine>

/** The status of a run is the name of its leaf state. */
export function statusOf(snapshot: RunSnapshot): RunStatus {
  const { value } = snapshot
  return (typeof value === 'string' ? value : Object.values(value)[0]) as RunStatus
}

export const encodeChart = (snapshot: RunSnapshot): EncodedChart => ({
  version: RUN_MACHINE_VERSION,
  value: snapshot.value,
  context: snapshot.context as unknown as Json,
})

/** @throws when the snapshot is of a later version or names a state that the chart does not have. */
export function decodeChart(machine: RunMachine, encoded: EncodedChart): RunSnapshot {
  const { value, context } = upgrade(encoded)
  return machine.resolveState({ value, context } as never)
}

/** A snapshot of an earlier version of the chart as the present one would have stored it. */
function upgrade({ version, value, context }: EncodedChart): EncodedChart {
  if (version === RUN_MACHINE_VERSION) return { version, value, context }
  const step = UPGRADES[version]
  if (!step) {
    throw new Error(
      `snapshot of chart version ${version}, this code runs version ${RUN_MACHINE_VERSION}`,
    )
  }
  return upgrade({ version: version + 1, value, context: step(context as object) as Json })
}

/** By version: what its context lacks of the next one's. */
const UPGRADES: Readonly<Record<number, (context: object) => object>> = {
  1: (context) => ({ ...context, stuck_reason: null, stuck_clock: null, orphan: false }),
  2: (context) => ({ ...context, stuck_call: null, works_beside: false }),
}

/** The chart of a run that is about to be created. */
export function newChart(machine: RunMachine, input: RunInput): RunSnapshot {
  return createActor(machine, { input }).getSnapshot()
}

/**
 * The chart of a stored run: its last own decision, and then what SQL has decided since (`run.due`, `lane.granted`,
 * `run.claimed`), in order. @throws when chart and SQL disagree: such a run must not be acted on.
 */
export function restoreChart(
  machine: RunMachine,
  row: {
    run_id: string
    chart: EncodedChart
    line_events: string[]
    status: RunStatus
    attempt: number
  },
): RunSnapshot {
  let snapshot = decodeChart(machine, row.chart)
  for (const type of row.line_events) {
    const decision = transitionOf(machine, snapshot, { type } as RunEvent)
    if (!decision)
      throw new Error(`${row.run_id}: the chart does not accept ${type} in ${statusOf(snapshot)}`)
    snapshot = decision.next
  }
  if (statusOf(snapshot) !== row.status || snapshot.context.attempt !== row.attempt) {
    throw new Error(
      `${row.run_id}: the chart says ${statusOf(snapshot)} (attempt ${snapshot.context.attempt}), ` +
        `the row says ${row.status} (attempt ${row.attempt})`,
    )
  }
  return snapshot
}

/**
 * A chart in the state that the row names, without its history: only to end a run whose snapshot cannot be restored.
 */
export function resolveStatus(
  machine: RunMachine,
  row: { status: RunStatus; attempt: number },
): RunSnapshot {
  const fresh = newChart(machine, { delayed: false, hold_lane_on_human: false })
  const context = { ...fresh.context, attempt: row.attempt, holds_lane: true }
  return machine.resolveState({ value: { active: row.status }, context })
}

/** Changes with every change of states, transitions, guards or actions of the chart. */
export function machineHash(machine: RunMachine): string {
  return createHash('sha256')
    .update(canonicalJson(machine.config as unknown))
    .digest('hex')
    .slice(0, 16)
}
