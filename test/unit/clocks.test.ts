import { expect, test } from 'vitest'
import { diagnose } from '../../src/runtime/diagnosis/diagnosis.ts'
import { type Random, seeded } from '../support/random.ts'
import { callOf, messageOf } from '../support/run-messages.ts'
import { SimulatedRun } from '../support/simulated-run.ts'
import { RULES } from '../support/wait-facts.ts'

/** HISTORY_SEED repeats one that failed. */
const HISTORIES = 1000
const FIRST = Number(process.env['HISTORY_SEED'] ?? 1)
const WATCHDOG = {
  limits: { reasoning: 5_000, tool: 9_000, turn: 25_000, executor: 4_000 },
  autoTerminate: { mode: 'on', afterMs: 7_000 },
} as const
/** A look of the watchdog. */
const LOOK_MS = 1_000
/** What a row may be off, and what its commit takes. */
const SLACK_MS = 400

/** What a run, its operators and its machine do next, and which calls and children are open by that. */
function move(run: SimulatedRun, random: Random, nth: number, open: Set<number>): void {
  const { hosted, now } = run
  const { status } = hosted.ledger
  const calls = [...open]
  const children = hosted.ledger.chart.context.children
  const act = random.int(10)
  if (act === 0) return run.say({ type: 'progress.reported', phase: 'on its way' })
  if (act === 1 && calls.length > 0)
    return run.say({ type: 'progress.reported', tool_call_id: `tool_${random.pick(calls)}` })
  if (act <= 3 && !hosted.isHeldBack) {
    open.add(nth)
    const timeout_ms = random.pick([null, null, 3_000, 15_000])
    return run.say({ type: 'tool.started', call: callOf(nth), timeout_ms })
  }
  if (act <= 4 && calls.length > 0) {
    const done = random.pick(calls)
    open.delete(done)
    const call = callOf(done, { outcome: 'succeeded', settled: nth })
    return run.say({ type: 'tool.finished', call })
  }
  if (act === 5 && !hosted.isHeldBack) return run.say(messageOf({ type: 'child.started' }, nth))
  if (act === 6 && children > 0) return run.say(messageOf({ type: 'child.reported' }, nth))
  if (act === 7) {
    const by_ms = random.pick([2_000, 10_000])
    return void hosted.receive({ type: 'turn.extended', by_ms }, now)
  }
  if (act === 8) run.silentSince = random.chance(0.3) ? (run.silentSince ?? now) : null
  else if (act === 9 && random.chance(0.2)) run.freeze(random.int(20_000))
  else if (status === 'running') run.arrive()
}

/** A history, and at its end what the diagnosis says and what the watchdog does when nothing moves any more. */
async function judged(seed: number): Promise<'flagged' | 'otherwise' | 'ended' | 'none'> {
  const random = seeded(seed)
  const timeouts = random.chance(0.3) ? { turn: '12s' } : {}
  const run = new SimulatedRun(WATCHDOG, { timeouts }, () => random.int(60))
  run.pass(random.int(3_000))
  run.hosted.vitals.begin(run.now)
  const open = new Set<number>()
  for (let nth = 1; nth <= random.int(25) + 1 && run.endedAt === null; nth += 1) {
    run.pass(random.int(3_000))
    move(run, random, nth, open)
  }
  // A look that misses the pulse of the executor, one that tells so, and the commit of what it has told.
  run.pass(2 * LOOK_MS + SLACK_MS)
  if (run.endedAt !== null) return 'none'
  const facts = run.facts()
  const [cause] = (await diagnose('run', { read: async () => facts, rules: RULES }))?.causes ?? []
  const { stuck_reason } = facts
  const askedAt = run.now
  const isOver = (): boolean =>
    run.endedAt !== null ||
    (stuck_reason === null && run.hosted.ledger.chart.context.stuck_reason !== null)
  const mayCome = askedAt + 120_000
  while (!isOver() && run.now < mayCome) run.pass(100)
  const deadline = cause?.deadline ?? null
  const told = `${seed}: ${JSON.stringify(cause)}`
  if (facts.status === 'waiting_on_child' || deadline === null) {
    // Of its own nothing comes, unless its executor has no pulse: that ends it whoever is at work for it.
    const came = run.hosted.ledger.chart.context.stuck_clock
    expect(!isOver() || came === 'executor', told).toBe(true)
    return 'none'
  }
  expect(isOver(), told).toBe(true)
  const off = run.now - Date.parse(deadline)
  expect(off, told).toBeGreaterThan(-SLACK_MS)
  expect(off, told).toBeLessThan(LOOK_MS + SLACK_MS)
  if (run.endedAt !== null) return 'ended'
  const { stuck_reason: found } = run.hosted.ledger.chart.context
  return found !== null && cause?.evidence.includes(found) ? 'flagged' : 'otherwise'
}

test(`at the end of ${HISTORIES} random histories the diagnosis names when the watchdog acts, and for what`, async () => {
  const seen = { flagged: 0, otherwise: 0, ended: 0, none: 0 }
  for (let seed = FIRST; seed < FIRST + HISTORIES; seed += 1) seen[await judged(seed)] += 1
  expect(seen.flagged).toBeGreaterThan(HISTORIES / 10)
  expect(seen.ended).toBeGreaterThan(HISTORIES / 10)
  // Of several clocks that are over within one look another one may be told of than the first.
  expect(seen.otherwise).toBeLessThan(seen.flagged / 10)
})
