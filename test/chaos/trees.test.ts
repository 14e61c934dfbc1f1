import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, expect, test } from 'vitest'
import { type Api, api, type Run, type RunEvent } from '../support/api.ts'
import { CHAOS_ENV, SEED } from '../support/chaos-kills.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { seeded } from '../support/random.ts'
import { startService } from '../support/service.ts'

const ROOTS = 24
const KILLS = 12

const databaseUrl = await freshDatabase()
const sql = postgres(databaseUrl, { max: 2 })
const start = (id: string) =>
  startService({ databaseUrl, env: { ...CHAOS_ENV, RUNLANE_NODE_ID: id } })
const services = [await start('a'), await start('b')]
afterAll(async () => {
  for (const service of services) await service.kill()
  await sql.end()
})
const random = seeded(SEED)

const leaf = (): object => ({
  agent: 'scripted',
  input: { steps: [{ step: 'worked' }, { think: random.int(900) }, { return: 'leaf' }] },
})
const branch = (): object => ({
  agent: 'scripted',
  input: { steps: [{ delegate_all: [leaf(), leaf()] }, { return: 'branch' }] },
})

/** What a run was told of those that it delegated: the start of each, and its end, once. */
const toldOf = (events: RunEvent[]): Map<string, RunEvent[]> =>
  Map.groupBy(
    events.filter(({ event_type }) => /^(child_|delegation_)/.test(event_type)),
    ({ payload }) => payload.child_run_id as string,
  )

const clients = (): Api => api(services[random.int(services.length)] ?? { url: '' })

test(`trees of runs end as a whole through ${KILLS} kills of their nodes (seed ${SEED})`, async () => {
  const roots: Run[] = []
  for (let nth = 0; nth < ROOTS; nth += 1) {
    const steps = [{ delegate_all: [branch(), leaf()] }, { return: 'root' }]
    roots.push(await clients().createRun({ agent: 'scripted', input: { steps } }))
  }
  const cancelled = new Set<string>()
  for (let kill = 0; kill < KILLS; kill += 1) {
    await pause(100 + random.int(600))
    const victim = random.int(services.length)
    await services[victim]?.kill()
    // Somebody acts while one node is dead: on a root, or on one of the delegated runs.
    const [open] = await sql<{ run_id: string; parent_run_id: string | null }[]>`
      select run_id, parent_run_id from runlane.agent_runs where ended_at is null order by random() limit 1`
    const alive = services[1 - victim]
    if (open && alive) {
      const path =
        open.parent_run_id === null
          ? `/runs/${open.run_id}/cancel`
          : `/api/v1/admin/agent-runtime/subagents/${open.run_id}/interrupt`
      const { status } = await api(alive).post(path, {})
      if (status === 202 && open.parent_run_id === null) cancelled.add(open.run_id)
    }
    services[victim] = await start(victim === 0 ? 'a' : 'b')
  }

  for (const root of roots) {
    const ended = await clients().waitForRun(root.run_id, { timeoutMs: 60_000 })
    if (!cancelled.has(root.run_id))
      expect(ended, root.run_id).toMatchObject({ status: 'completed', output: 'root' })
  }
  const open = await sql`select run_id, status from runlane.agent_runs where ended_at is null`
  expect(open).toEqual([])
  await eventually(async () => (await sql`select run_id from runlane.run_inbox`).length === 0, {
    message: 'letters that nobody reads',
  })
  const parents = await sql<{ run_id: string; status: string; children: string[]; end: number }[]>`
    select p.run_id, p.status, array_agg(c.run_id order by c.run_id) as children,
      (select max(e.id) from runlane.agent_events e where e.run_id = p.run_id) as end
    from runlane.agent_runs p join runlane.agent_runs c on c.parent_run_id = p.run_id group by p.run_id`
  expect(parents.length).toBeGreaterThan(ROOTS)
  for (const { run_id, status, children } of parents) {
    const events = await clients().events(run_id)
    const told = toldOf(events)
    expect([...told.keys()].toSorted(), run_id).toEqual(children)
    for (const one of told.values())
      expect(
        one.map(({ event_type }) => event_type),
        `${run_id} is ${status}`,
      ).toEqual(['child_started', expect.stringMatching(/^(child_finished|delegation_cancelled)$/)])
  }
}, 120_000)
