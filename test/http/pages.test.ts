import { expect, test } from 'vitest'
import { scripted, serve } from './setup.ts'

const { get, post, createRun, createBatch, waitForRun } = await serve('postgres')

const STEPS = [{ tool: 'a' }, { tool: 'b' }]
const child = { delegate: { agent: 'scripted', input: { steps: [] } } }

/** A page of all that there is, and one of all but the last. */
const expectEnds = async (path: string, plural: string): Promise<void> => {
  const query = path.includes('?') ? '&' : '?'
  const all = (await get(`${path}${query}limit=1000`)).body[plural]
  expect(all.length).toBeGreaterThan(1)

  const full = await get(`${path}${query}limit=${all.length}`)
  expect(full.body).toMatchObject({ [plural]: { length: all.length }, next_cursor: null })

  const less = await get(`${path}${query}limit=${all.length - 1}`)
  expect(less.body[plural]).toHaveLength(all.length - 1)
  const rest = await get(`${path}${query}limit=1000&cursor=${less.body.next_cursor}`)
  // Time goes on between two answers.
  const { age_ms: _age, ...last } = all.at(-1)
  expect(rest.body[plural]).toMatchObject([last])
  expect(rest.body.next_cursor).toBeNull()
}

test.each([
  ['events', 'events'],
  ['checkpoints', 'checkpoints'],
  ['tool-results', 'tool_results'],
])('a full page of %s after which nothing comes has no cursor', async (path, plural) => {
  const { run_id } = await createRun(scripted(STEPS))
  await waitForRun(run_id)
  await expectEnds(`/runs/${run_id}/${path}`, plural)
})

test('so it is with children', async () => {
  const { run_id } = await createRun(scripted([child, child, child]))
  await waitForRun(run_id)
  await expectEnds(`/runs/${run_id}/children`, 'children')
})

test('so it is with runs and with the audit trail', async () => {
  const made = await createBatch(
    [1, 2, 3].map(() => scripted([], { conversation_id: 'pages', lane_key: 'pages' })),
  )
  for (const { run_id } of made) await waitForRun(run_id)
  await expectEnds('/runs?conversation_id=pages', 'runs')
  for (const name of ['one', 'two', 'three'])
    await post('/api/v1/admin/tokens', { name, role: 'viewer' })
  await expectEnds('/api/v1/admin/audit?action=token.create', 'audit')
})
