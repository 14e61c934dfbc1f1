import { afterAll, expect, test } from 'vitest'
import { moduleFolder } from '../agents/module-folder.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'

/** They are at work beside what they delegate: who only waits is not parked. */
const agents = moduleFolder({
  'busy.ts': `import { once } from 'node:events'
import { defineAgent, tool, z } from 'runlane'
const work = tool({
  description: 'works until it is told to stop',
  input: z.object({}),
  effects: 'none',
  timeout: '1h',
  execute: (_, { signal }) => once(signal, 'abort'),
})
export default defineAgent({
  name: 'busy',
  tools: { work },
  run: (ctx) => Promise.all([ctx.delegate(ctx.input.agent, ctx.input.input), ctx.tool('work', {})]),
})
`,
})
/** Each crash of their node parks the runs that had recorded nothing yet. */
let service = await startService({
  databaseUrl: await freshDatabase(),
  env: { RUNLANE_AGENTS: agents.path, RUNLANE_MAX_CRASHES: '1', RUNLANE_LEASE: '1s' },
})
afterAll(() => service.kill())
const client = api(service)

test('a parked run that is cancelled ends after what it has delegated', async () => {
  const leaf = { agent: 'scripted', input: { steps: [{ think: 60_000 }] } }
  const branch = { agent: 'busy', input: leaf }
  const root = await client.createRun({ agent: 'busy', input: branch })
  const tree = async (): Promise<Run[]> =>
    (await client.get(`/runs?conversation_id=${root.conversation_id}`)).body.runs
  await eventually(async () => {
    const [last, ...above] = await tree()
    return (
      last?.status === 'running' && above.length === 2 && above.every(({ tool }) => tool !== null)
    )
  })
  await service.kill()
  service = await service.restart()
  await eventually(async () => (await tree()).every(({ status }) => status === 'waiting_on_human'))

  await client.cancel(root.run_id)

  expect(await client.waitForRun(root.run_id)).toMatchObject({ status: 'cancelled' })
  const ends = await Promise.all(
    (await tree()).map(async ({ run_id }) => (await client.events(run_id)).at(-1)),
  )
  // Newest first, as lists are: the leaf, its parent, the root.
  expect(ends.map((end) => end?.payload.to)).toEqual(['cancelled', 'cancelled', 'cancelled'])
  const ids = ends.map((end) => Number(end?.id))
  expect(ids).toEqual(ids.toSorted((a, b) => a - b))
})
