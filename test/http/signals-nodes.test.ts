/** Signals that come on another node than that of their run, in the moment in which it is parked, or as a node dies. */
import { fileURLToPath } from 'node:url'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, expect, test } from 'vitest'
import { type Api, api, type Run } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'
import { expectProblem } from './setup.ts'

const databaseUrl = await freshDatabase()
const effects = await startEffectServer()
const sql = postgres(databaseUrl, { max: 3, onnotice: () => {} })
const env = {
  RUNLANE_AGENTS: fileURLToPath(new URL('../agents/fixtures/signals', import.meta.url)),
  RUNLANE_LEASE: '1s',
  EFFECTS_URL: effects.url,
}
const start = async (RUNLANE_NODE_ID: string): Promise<Service & { api: Api }> => {
  const service = await startService({ databaseUrl, env: { ...env, RUNLANE_NODE_ID } })
  return { ...service, api: api(service) }
}
const [a, b] = await Promise.all([start('a'), start('b')])
afterAll(async () => {
  await Promise.all([a.kill(), b.kill()])
  await sql.end()
  await effects.close()
})

const listen = ({ createRun }: Api, ...parts: object[]): Promise<Run> =>
  createRun({ agent: 'listener', input: { parts } })
/** A run in the middle of a call, the node that has it in its memory, and the other one. */
const inCall = async (path: string, ...parts: object[]) => {
  const [first, ...rest] = parts
  const run = await listen(a.api, { tool: 'call', input: { path, hang: true }, ...first }, ...rest)
  await eventually(() => effects.calls.some((call) => call.path === `/${path}`))
  const { node_id } = await a.api.run(run.run_id)
  const [host, other] = node_id === 'a' ? [a, b] : [b, a]
  return { run, host, other }
}
const isParked = ({ status }: Run): boolean => status === 'waiting_on_human'
const send = ({ post }: Api, run: Run, data: unknown) =>
  post(`/runs/${run.run_id}/signal`, { name: 'x', data })

/** While it is held, commits of all nodes wait in the order in which they come. */
const holdCommits = async (): Promise<() => Promise<void>> => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const { promise: held, resolve: hold } = Promise.withResolvers<void>()
  const holding = sql.begin(async (transaction) => {
    await transaction`select pg_advisory_xact_lock(7420)`
    hold()
    await released
  })
  await held
  return async () => {
    release()
    await holding
  }
}
/** So many commits wait, or those who want to hold them. */
const waiting = (wanted: number) =>
  eventually(async () => {
    const [row] = await sql`select count(*)::int as n from pg_locks
      where locktype = 'advisory' and not granted and objid = 7420
        and database = (select oid from pg_database where datname = current_database())`
    return row?.['n'] === wanted
  })

test('a signal reaches a run in the memory of another node', async () => {
  const { run, other } = await inCall('far', { beside: 'x' })

  expect((await send(other.api, run, 'from afar')).status).toBe(202)

  await eventually(async () =>
    (await other.api.events(run.run_id)).some(({ payload }) => payload.kind === 'signal'),
  )
  effects.release()
  expect((await other.api.waitForRun(run.run_id))['output']).toEqual([['far', 'from afar']])
})

test.each(['signal-first', 'park-first'])(
  'a signal and the park of its run are committed at once, on two nodes: %s',
  async (order) => {
    const { run, other } = await inCall(order, {}, { read: 'x' })
    const letGo = await holdCommits()
    effects.release()
    // The end of the call: behind it the run asks for the signal, finds none, and is parked half a second later.
    await waiting(1)
    const holding = holdCommits()
    await waiting(2)
    await letGo()
    const letAllGo = await holding

    if (order === 'park-first') await waiting(1)
    const sent = send(other.api, run, 'it')
    await waiting(order === 'park-first' ? 2 : 1)
    await waiting(2)
    await letAllGo()

    expect((await sent).status).toBe(202)
    expect(await other.api.waitForRun(run.run_id)).toMatchObject({
      output: [order, 'it'],
      attempt: 2,
    })
  },
)

test('of signals to many runs in the moment in which each is parked none is lost', async () => {
  const runs = await Promise.all(
    Array.from({ length: 40 }, () => listen(a.api, { read: 'x' }, { read: 'x' })),
  )
  await Promise.all(
    runs.map(async (run, nth) => {
      // From before they are parked until after it: that they meet is what is wanted, when does not matter.
      await pause(nth * 20)
      await send(nth % 2 === 0 ? a.api : b.api, run, nth)
      await b.api.waitForRun(run.run_id, { until: isParked })
      await send(nth % 3 === 0 ? a.api : b.api, run, 'last')
    }),
  )
  for (const [nth, run] of runs.entries())
    expect((await b.api.waitForRun(run.run_id))['output']).toEqual([nth, 'last'])
})

test('an answer is not what a run waits for that waits for a signal', async () => {
  const run = await listen(a.api, { all: ['x', 'y'] })
  await a.api.waitForRun(run.run_id, { until: isParked })

  const refused = await b.api.respond(run.run_id, { outcome: 'retry' })

  expectProblem(refused, { status: 409, code: 'waits_for_signal' })
  expect(refused.body).toMatchObject({ signals: ['x', 'y'], run_id: run.run_id })
  expect((await a.api.run(run.run_id)).status).toBe('waiting_on_human')
})

test('the node of a run is killed as a signal comes: another one goes on with it, and reads it once', async () => {
  const { run, host, other } = await inCall('killed', { beside: 'x' }, { read: 'x' })

  await Promise.all([send(other.api, run, 1), host.kill()])
  await send(other.api, run, 2)
  await eventually(() => effects.calls.filter(({ path }) => path === '/killed').length === 2)
  effects.release()

  expect((await other.api.waitForRun(run.run_id))['output']).toEqual([['killed', 1], 2])
})
