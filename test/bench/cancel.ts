import { loadavg } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import type { Sql } from 'postgres'
import type { Service } from '../support/service.ts'
import { cpuSeconds } from './measure.ts'
import { follow, post, print, spread } from './client.ts'

/** Thinks for longer than the benchmark takes, and is not found stuck meanwhile. */
const RUN = {
  agent: 'scripted',
  input: { steps: [{ think: 3_600_000 }] },
  timeouts: { reasoning: '2h', turn: '2h' },
}
const BATCH = 500
/** How long the last ones may take to be seen. */
const TAIL_MS = 20_000

/**
 * Cancels on an open loop, each of a run taken at random from `active` active ones and replaced by a new one: from the
 * POST to the `cancelled` event on one stream over all runs.
 */
export async function cancels(
  target: Service,
  sql: Sql,
  databasePid: number,
  { active, rate, seconds }: { active: number; rate: number; seconds: number },
): Promise<void> {
  const posted = [...Array(Math.ceil(active / BATCH)).keys()].map((nth) =>
    post(target, '/runs/batch', {
      runs: Array.from({ length: Math.min(BATCH, active - nth * BATCH) }, () => RUN),
    }),
  )
  const alive = (await Promise.all(posted)).flatMap((answer) =>
    (answer as { runs: { run_id: string }[] }).runs.map(({ run_id }) => run_id),
  )
  while ((await activeRuns(sql)) < active) await delay(100)

  const sentAt = new Map<string, number>()
  const seenAt = new Map<string, number>()
  const answered: number[] = []
  const abort = new AbortController()
  const stream = follow(target, sql, abort.signal, ({ event_type, run_id, payload }, at) => {
    if (event_type === 'run_status_changed' && payload.to === 'cancelled') seenAt.set(run_id, at)
  })
  const requests: Promise<unknown>[] = []
  const before = { node: cpuSeconds(target.pid), postgres: cpuSeconds(databasePid) }
  const startedAt = performance.now()
  let fewest = active
  for (let nth = 0; nth < rate * seconds; nth += 1) {
    // Timed from when it was due: a late client would otherwise hide the wait (coordinated omission).
    const due = startedAt + (nth * 1000) / rate
    await delay(Math.max(0, due - performance.now()))
    const [runId = ''] = alive.splice(Math.floor(Math.random() * alive.length), 1)
    sentAt.set(runId, due)
    requests.push(
      post(target, `/runs/${runId}/cancel`, {}).then(() => answered.push(performance.now() - due)),
      post(target, '/runs', RUN).then((run) => alive.push((run as { run_id: string }).run_id)),
    )
    if (nth % rate === 0) fewest = Math.min(fewest, await activeRuns(sql))
  }
  await Promise.all(requests)
  for (const until = performance.now() + TAIL_MS; performance.now() < until;) {
    if ([...sentAt.keys()].every((runId) => seenAt.has(runId))) break
    await delay(50)
  }
  abort.abort()
  await stream
  const latencies = [...sentAt].flatMap(([runId, sent]) => {
    const seen = seenAt.get(runId)
    return seen === undefined ? [] : seen - sent
  })
  const perCancel = (now: number, then: number): number =>
    Number((((now - then) * 1000) / sentAt.size).toFixed(1))
  print('cancel', {
    active_at_least: fewest,
    rate,
    seconds,
    never_seen: sentAt.size - latencies.length,
    post_to_answer: spread(answered),
    post_to_cancelled_event: spread(latencies),
    // Of a cancel, and of the run that comes in its place.
    cpu_ms: {
      node: perCancel(cpuSeconds(target.pid), before.node),
      postgres: perCancel(cpuSeconds(databasePid), before.postgres),
    },
    load_average: Number(loadavg()[0]?.toFixed(1)),
  })
}

async function activeRuns(sql: Sql): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int as count from runlane.agent_runs where owner_epoch is not null`
  return row?.count ?? 0
}
