import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { moduleFolder } from '../agents/module-folder.ts'
import { api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'

const databaseUrl = await freshDatabase()
const folder = moduleFolder({
  'host.ts': `import { defineAgent } from 'runlane'
export default defineAgent({
  name: 'host',
  on_orphan: { cancel_after: '500ms' },
  run: (ctx) => new Promise((resolve) => ctx.signal.addEventListener('abort', resolve)),
})
`,
})
const env = {
  RUNLANE_AGENTS: folder.path,
  RUNLANE_ORPHAN_GRACE: '600ms',
  RUNLANE_WATCHDOG_TOOL: '2s',
  RUNLANE_WATCHDOG_INTERVAL: '100ms',
}
let service: Service
let other: Service
beforeAll(async () => {
  service = await startService({ databaseUrl, env: { ...env, RUNLANE_NODE_ID: 'node-1' } })
  // Its runs would be found there as well: it is only read at.
  other = await startService({
    databaseUrl,
    env: { ...env, RUNLANE_CONCURRENCY: '1', RUNLANE_NODE_ID: 'node-2' },
  })
})
afterAll(async () => {
  for (const one of [service, other]) await one?.kill()
})

const THINK = [{ think: 120_000 }]
const client = () => api(service)
const chat = (more = {}, steps: object[] = THINK) =>
  client().createRun({ agent: 'scripted', surface: 'chat', input: { steps }, ...more })
const until = (run: Run, holds: (one: Run) => boolean) =>
  client().waitForRun(run.run_id, { until: holds })
const orphaned = (run: Run) => until(run, (one) => one.orphan)
const told = async (run: Run): Promise<string[]> =>
  (await client().events(run.run_id)).flatMap(({ event_type }) =>
    event_type === 'run_orphaned' || event_type === 'run_watched' || event_type === 'run_stuck'
      ? event_type
      : [],
  )
/** Reads a stream until it is told to leave; resolves when it is open. */
async function reader(at: Service, path: string): Promise<() => void> {
  const leaving = new AbortController()
  const response = await fetch(at.url + path, {
    headers: { authorization: `Bearer ${at.token}` },
    signal: leaving.signal,
  })
  response.body?.pipeTo(new WritableStream()).catch(() => {})
  return () => leaving.abort()
}

describe('a run of a chat that nobody reads', () => {
  test('is an orphan after the grace, shown and counted, and it goes on', async () => {
    const run = await chat()
    expect(await orphaned(run)).toMatchObject({ status: 'running', stuck_reason: null })
    const orphans = (await client().get('/runs?orphan=true')).body.runs
    expect(orphans.map((one: Run) => one.run_id)).toEqual([run.run_id])
    const others = (await client().get('/runs?orphan=false')).body.runs
    expect(others.map((one: Run) => one.run_id)).not.toContain(run.run_id)
    const { summary, runs } = (await client().get('/api/v1/admin/agent-runtime/snapshot')).body
    expect(summary.orphan).toBe(1)
    expect(runs.find((one: Run) => one.run_id === run.run_id)).toMatchObject({ orphan: true })
    expect(await told(run)).toEqual(['run_orphaned'])
    await client().cancel(run.run_id)
    expect(await client().waitForRun(run.run_id)).toMatchObject({
      status: 'cancelled',
      orphan: false,
    })
  })

  test.each(['api', 'schedule', 'slack'])('is none on the surface %s', async (surface) => {
    const more = surface === 'schedule' ? { task_run_id: 't' } : {}
    const channel = surface === 'slack' ? { channel: 'c', sender_key: 's' } : {}
    const [run, control] = [await chat({ surface, ...more, ...channel }), await chat()]
    await orphaned(control)
    expect(await client().run(run.run_id)).toMatchObject({ orphan: false })
    for (const one of [run, control]) await client().cancel(one.run_id)
  })
})

describe.each([
  [
    'its conversation, at its node',
    () => service,
    (run: Run) => `/conversations/${run.conversation_id}`,
  ],
  ['it, at another node', () => other, (run: Run) => `/runs/${run.run_id}`],
] as const)('while somebody reads %s', (_what, at, pathOf) => {
  test('it is none; it is one when they have left for so long, and none when they are back', async () => {
    const run = await chat()
    const leave = await reader(at(), `${pathOf(run)}/agent-events`)
    const control = await chat()
    await orphaned(control)
    const again = await chat()
    await orphaned(again)
    expect(await client().run(run.run_id)).toMatchObject({ orphan: false })

    leave()
    await orphaned(run)
    const leaveAgain = await reader(at(), `${pathOf(run)}/agent-events`)
    await until(run, (one) => !one.orphan)
    expect(await told(run)).toEqual(['run_orphaned', 'run_watched'])
    leaveAgain()
    for (const one of [run, control, again]) await client().cancel(one.run_id)
  })
})

test('who reads the events of all runs reads none in particular', async () => {
  const leave = await reader(service, '/agent-events')
  const run = await chat()
  await orphaned(run)
  leave()
  await client().cancel(run.run_id)
})

test('stuck wins over orphan', async () => {
  const run = await chat({}, [{ tool: 'lost', hang: true }])
  await orphaned(run)
  const stuck = await until(run, (one) => one['stuck_reason'] !== null)
  expect(stuck).toMatchObject({ orphan: false, stuck_reason: 'tool_call.timeout(2s)' })
  const control = await chat()
  await orphaned(control)
  expect(await client().run(run.run_id)).toMatchObject({ orphan: false })
  expect(await told(run)).toEqual(['run_orphaned', 'run_stuck'])
  for (const one of [run, control])
    await client().post(`/api/v1/admin/agent-runtime/runs/${one.run_id}/recycle`, { force: true })
})

test('of an agent that says so is cancelled when it has been an orphan for so long', async () => {
  const run = await client().createRun({ agent: 'host', surface: 'playground', input: null })
  expect(await client().waitForRun(run.run_id)).toMatchObject({ status: 'cancelled' })
  const events = await client().events(run.run_id)
  const payloadOf = (type: string) => events.find((one) => one.event_type === type)?.payload
  expect(payloadOf('watchdog_verdict')).toMatchObject({
    action: 'cancel_orphan',
    stuck_reason: 'orphan(500ms)',
    limit_ms: 500,
  })
  expect(payloadOf('cancel_requested')).toMatchObject({
    by: 'watchdog',
    reason: 'nobody has read it for 500ms',
  })
  expect((await client().run(run.run_id)).cancel.delivered.by).toMatch(/^node-[12]$/)
  const { audit } = (await client().get('/api/v1/admin/audit?action=watchdog.cancel_orphan')).body
  expect(audit).toMatchObject([
    { before: { status: 'running' }, after: { status: 'cancel_requested' } },
  ])
  const { body } = await client().get('/agents/host')
  expect(body.on_orphan).toEqual({ cancel_after: '500ms' })
})
