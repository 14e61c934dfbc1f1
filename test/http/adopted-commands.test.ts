import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { moduleFolder } from '../agents/module-folder.ts'
import { type Api, api, type ApiResponse, type Run } from '../support/api.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'

/**
 * What was asked of a run while its node did not answer: it was accepted, so whoever takes the run over does that first.
 */
const databaseUrl = await freshDatabase()
/** On the node that will freeze it never comes to its call; wherever it goes on, that is the first thing it does. */
const folder = moduleFolder({
  'eager.ts': `import { defineAgent, tool, z } from 'runlane'
const charge = tool({
  description: 'Charges somebody.',
  input: z.object({ run: z.string() }),
  execute: ({ run }) => fetch(process.env.EFFECTS_URL + '/' + run, { method: 'POST' }).then((answer) => answer.json()),
})
export default defineAgent({
  name: 'eager',
  tools: { charge },
  run: async (ctx) => {
    if (process.env.ONLY_WAITS) await new Promise(() => {})
    return ctx.tool('charge', { run: ctx.runId })
  },
})
`,
})

let effects: EffectServer
let frozen: Service
let other: Service
let client: Api
const start = (more: Record<string, string>) =>
  startService({
    databaseUrl,
    env: {
      RUNLANE_AGENTS: folder.path,
      RUNLANE_LEASE: '2s',
      RUNLANE_WATCHDOG_INTERVAL: '100ms',
      EFFECTS_URL: effects.url,
      ...more,
    },
  })

const eager = { agent: 'eager', input: null }
const DELEGATES = { agent: 'scripted', input: { steps: [{ delegate: eager }, { return: 'on' }] } }
const STUCK = { ...eager, timeouts: { reasoning: '300ms' } }
const admin = '/api/v1/admin/agent-runtime'

interface Asked {
  body: object
  /** Of the run that was posted, or of the one that it has delegated. */
  at?: 'child'
  ask: (run: Run) => Promise<ApiResponse>
  ends: object
}
const ASKED: Record<string, Asked> = {
  'a cancel': {
    body: eager,
    ask: ({ run_id }) => client.cancel(run_id, { reason: 'enough' }),
    ends: { status: 'cancelled' },
  },
  'a stop': {
    body: eager,
    ask: ({ run_id }) => client.post(`${admin}/runs/${run_id}/stop`, {}),
    ends: { status: 'cancelled' },
  },
  'an interrupt of a child': {
    body: DELEGATES,
    at: 'child',
    ask: ({ run_id }) => client.post(`${admin}/subagents/${run_id}/interrupt`, {}),
    ends: { status: 'cancelled' },
  },
  'a recycle by force': {
    body: eager,
    ask: ({ run_id }) => client.post(`${admin}/runs/${run_id}/recycle`, { force: true }),
    ends: { status: 'failed', error_code: 'recycled' },
  },
  'a recycle of a stuck run': {
    body: STUCK,
    ask: ({ run_id }) => client.post(`${admin}/runs/${run_id}/recycle`, {}),
    ends: { status: 'failed', error_code: 'recycled' },
  },
}

const until = (run: Run, holds: (one: Run) => boolean) =>
  client.waitForRun(run.run_id, { until: holds })
const childOf = (run: Run): Promise<Run> =>
  eventually(
    async () => (await client.get(`/runs/${run.run_id}/children`)).body.children[0] ?? false,
  )
/** Its code has begun, on the node that will freeze. */
const begun = async (asked: Pick<Asked, 'body' | 'at'>): Promise<Run> => {
  const posted = await client.createRun(asked.body)
  const run = asked.at === 'child' ? await childOf(posted) : posted
  const isStuck = asked.body === STUCK
  return until(run, ({ status, stuck_reason }) =>
    isStuck ? stuck_reason !== null : status === 'running' || status === 'waiting_on_child',
  )
}
const callsOf = (run: Run) => effects.calls.filter(({ path }) => path === `/${run.run_id}`)
/** What began after the run had been taken from its node. */
const startedAfterLoss = async (run: Run): Promise<string[]> => {
  const types = (await client.events(run.run_id)).map(({ event_type }) => event_type)
  expect(types).toContain('lease_lost')
  return types.slice(types.indexOf('lease_lost')).filter((type) => type === 'tool_started')
}

const runs: Record<string, Run> = {}
const answers: Record<string, ApiResponse> = {}
let untold: Run
let tree: { root: Run; child: Run }
beforeAll(async () => {
  effects = await startEffectServer()
  frozen = await start({ RUNLANE_NODE_ID: 'frozen', ONLY_WAITS: 'yes' })
  client = api(frozen)
  untold = await begun({ body: eager })
  const root = await begun({ body: DELEGATES })
  tree = { root, child: await childOf(root) }
  for (const [name, asked] of Object.entries(ASKED)) runs[name] = await begun(asked)
  other = await start({ RUNLANE_NODE_ID: 'other' })
  client = api(other)

  frozen.freeze()
  const given = Object.entries(ASKED).map(async ([name, { ask }]) => {
    answers[name] = await ask(runs[name] as Run)
  })
  answers['tree'] = await client.cancel(root.run_id, { reason: 'all of it' })
  await Promise.all(given)
})
afterAll(async () => {
  for (const service of [frozen, other]) await service?.kill()
  await effects?.close()
})

describe('accepted while the node of its run was frozen,', () => {
  test.each(Object.keys(ASKED))('%s is carried out before anything else begins', async (name) => {
    const run = runs[name] as Run
    expect(answers[name]).toMatchObject({ status: 202, body: { command: { status: 'pending' } } })

    expect(await client.waitForRun(run.run_id)).toMatchObject(ASKED[name]?.ends ?? {})

    expect(await startedAfterLoss(run)).toEqual([])
    expect(callsOf(run)).toEqual([])
    const { audit } = (await client.get('/api/v1/admin/audit?limit=1000')).body
    const ofRun = (audit as { run_id: string }[]).filter(({ run_id }) => run_id === run.run_id)
    expect(ofRun).toMatchObject([{ outcome: 'applied' }])
  })

  test('a cancel ends what its run has delegated before anything of that begins', async () => {
    const { root, child } = tree
    expect(answers['tree']).toMatchObject({ status: 202 })

    expect(await client.waitForRun(root.run_id)).toMatchObject({ status: 'cancelled' })

    expect(await client.run(child.run_id)).toMatchObject({
      status: 'cancelled',
      cancel: { reason: `the run above it, ${root.run_id}, was told to end: all of it` },
    })
    expect(await startedAfterLoss(child)).toEqual([])
    expect(callsOf(child)).toEqual([])
  })
})

test('a run of which nothing was asked goes on', async () => {
  expect(await client.waitForRun(untold.run_id)).toMatchObject({ status: 'completed', attempt: 2 })
  expect(await startedAfterLoss(untold)).toEqual(['tool_started'])
  expect(callsOf(untold)).toHaveLength(1)
})
