import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runMachine } from '../../machines/run.ts'
import type { RunInput } from '../../machines/run-setup.ts'
import { restoreChart, statusOf } from '../../src/runtime/run/codec.ts'
import { transitionOf } from '../../src/runtime/run/decide.ts'
import { Ledger } from '../../src/runtime/run/ledger.ts'
import { commitFlush } from '../../src/store/commits.ts'
import { openDatabase } from '../../src/store/database.ts'
import type { FlushAnswer, RunRecord } from '../../src/store/flush.ts'
import { migrate } from '../../src/store/migrate.ts'
import { registerNode } from '../../src/store/nodes.ts'
import type { HostedRow } from '../../src/store/rows.ts'
import { loadHostedMany } from '../../src/store/runs.ts'
import { type ChartStep, RUN_INPUTS, walksOverEveryEdge } from '../support/chart-paths.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { flushOf, groupOf, runDraft } from '../support/run-drafts.ts'
import { messageOf } from '../support/run-messages.ts'

const database = openDatabase({ url: await freshDatabase(), notifies: false })
const { reads } = database
let epoch: number
beforeAll(async () => {
  await migrate(reads)
  epoch = await registerNode(reads, { nodeId: 'n1', version: '0', leaseMs: 3_600_000 })
  // Runs that only stand in the way of others are in a queue from which nobody claims.
  await reads`insert into runlane.queues (name, paused) values ('blockers', true)`
})
afterAll(() => database.close())

/** A run on its way through the chart, in the database. */
interface Walker {
  readonly runId: string
  readonly steps: readonly ChartStep[]
  at: number
  /** Holds the lane until the walk wants the run to have it. */
  blocker: string | null
}

const LATER = '2999-01-01T00:00:00Z'
const BATCH = 400
const isDecidedBySql = (type: string): boolean =>
  ['run.due', 'lane.granted', 'run.claimed'].includes(type)

const nextOf = (walker: Walker): ChartStep | undefined => walker.steps[walker.at]

/** Whether the next step leads into the line of the lane; `free`: and at once out of it, as the lane is free. */
function joins({ steps, at }: Walker, free: boolean): boolean {
  const next = steps[at]
  if (!next || statusOf(next.next) !== 'waiting_on_lane') return false
  const before = steps[at - 1]
  if (before && statusOf(before.next) === 'waiting_on_lane') return false
  return !free || steps[at + 1]?.event.type !== 'lane.granted'
}

const commit = (parts: Parameters<typeof flushOf>[0]): Promise<FlushAnswer> =>
  commitFlush(reads, flushOf(parts))

const rowsOf = async (runIds: string[]): Promise<Map<string, HostedRow>> =>
  new Map((await loadHostedMany(reads, runIds)).map((row) => [row.run_id, row]))

/** Puts a run into the lane of each walker, which gets its turn. */
async function block(walkers: Walker[]): Promise<void> {
  if (walkers.length === 0) return
  const blockers = walkers.map((walker) => {
    const draft = runDraft({ lane_key: `lane-of-${walker.runId}`, queue: 'blockers' })
    walker.blocker = draft.run_id
    return draft
  })
  await commit({ groups: [groupOf(...blockers)] })
}

/** Records for what the charts decide; each on the row as it is. */
async function decide(decisions: { runId: string; step: ChartStep['event'] }[]) {
  if (decisions.length === 0) return
  const rows = await rowsOf(decisions.map(({ runId }) => runId))
  const records = decisions.map(({ runId, step }, nth): RunRecord => {
    const row = rows.get(runId)
    if (!row) throw new Error(`${runId} is gone`)
    const ledger = Ledger.restore(row)
    expect(ledger.decide(messageOf(step, nth)), `${step.type} in ${ledger.status}`).toBeDefined()
    return ledger.take()
  })
  expect((await commit({ records })).accepted).toBeNull()
}

/** Takes the next step of every walker, each by whoever takes it in the service. */
async function advance(walkers: Walker[], free: boolean): Promise<void> {
  await block(walkers.filter((walker) => joins(walker, free)))
  const byEvent = Map.groupBy(walkers, (walker): string => nextOf(walker)?.event.type ?? '')
  const idsOf = (type: string): string[] => (byEvent.get(type) ?? []).map((walker) => walker.runId)

  // The lane is granted by the commit in which the run before leaves it.
  const blockers = (byEvent.get('lane.granted') ?? []).flatMap(({ blocker }) => blocker ?? [])
  await decide(blockers.map((runId) => ({ runId, step: { type: 'cancel.requested' } })))
  await decide(
    walkers.flatMap((walker) => {
      const step = nextOf(walker)?.event
      return step && !isDecidedBySql(step.type) ? [{ runId: walker.runId, step }] : []
    }),
  )
  const due = idsOf('run.due')
  await reads`update runlane.agent_runs set run_at = runlane.now() where run_id = any (${due})`
  // A claim also brings what is due into its lane; only runs whose walk says so may be claimed.
  const claimable = idsOf('run.claimed')
  await reads`update runlane.agent_runs set queue = 'default' where run_id = any (${claimable})`
  if (due.length + claimable.length > 0) {
    const { claimed } = await commit({ claim: { epoch, limit: 1_000 } })
    expect(claimed.map(({ run_id }) => run_id).toSorted()).toEqual(claimable.toSorted())
  }
  await reads`update runlane.agent_runs set queue = 'blockers' where run_id = any (${claimable})`
  for (const walker of walkers) {
    if (nextOf(walker)?.event.type === 'lane.granted') walker.blocker = null
    walker.at += 1
    if (free && nextOf(walker)?.event.type === 'lane.granted' && !walker.blocker) walker.at += 1
  }
}

/** Every row says what the chart says, to the letter, and so does the chart that a node would restore from it. */
async function compare(walkers: Walker[]): Promise<void> {
  const rows = await rowsOf(walkers.map(({ runId }) => runId))
  for (const { runId, steps, at } of walkers) {
    const state = steps[at - 1]?.next
    const row = rows.get(runId)
    const way = steps.slice(0, at).map(({ event }) => event.type)
    if (!state || !row) throw new Error(`${runId} has not begun`)
    const { attempt, holds_lane } = state.context
    expect(
      { status: row.status, attempt: row.attempt, holds_lane: row.holds_lane },
      way.join(' → '),
    ).toEqual({ status: statusOf(state), attempt, holds_lane })
    expect(row.owner_epoch, way.join(' → ')).toBe(state.hasTag('active') ? epoch : null)
    const restored = restoreChart(runMachine, row)
    expect([restored.value, restored.context], way.join(' → ')).toEqual([
      state.value,
      state.context,
    ])
  }
}

async function walkAll(input: RunInput, free: boolean): Promise<number> {
  const walks = walksOverEveryEdge(
    input,
    (from, event) => transitionOf(runMachine, from, event) !== undefined,
  )
  for (let start = 0; start < walks.length; start += BATCH) {
    const walkers: Walker[] = walks.slice(start, start + BATCH).map(({ steps }) => ({
      runId: `run_${crypto.randomUUID()}`,
      steps,
      at: 0,
      blocker: null,
    }))
    const begin = ({ steps }: Walker): boolean => steps[0]?.event.type === 'lane.granted'
    await block(walkers.filter((walker) => !input.delayed && !(free && begin(walker))))
    const run_at = input.delayed ? LATER : null
    const drafts = walkers.map(({ runId: run_id }) =>
      runDraft({ run_id, run_at, queue: 'blockers' }, input),
    )
    await commit({ groups: [groupOf(...drafts)] })
    for (const walker of walkers) if (!input.delayed && free && begin(walker)) walker.at = 1
    for (let walking = walkers; walking.length > 0;) {
      await compare(walking.filter(({ at }) => at > 0))
      walking = walking.filter((walker) => nextOf(walker))
      await advance(walking, free)
    }
  }
  return walks.length
}

describe('after every step of a run, the row in the database and the chart agree', () => {
  // Any two of the three meet in every way; all three together would take twice as long and show nothing else.
  const cases = RUN_INPUTS.map((input) => ({
    ...input,
    free: input.delayed === input.hold_lane_on_human,
  }))
  test.each(cases)(
    'delayed: $delayed, keeping its lane while parked: $hold_lane_on_human, lanes free: $free',
    { timeout: 120_000 },
    async ({ free, ...input }) => {
      expect(await walkAll(input, free)).toBeGreaterThan(500)
    },
  )
})
