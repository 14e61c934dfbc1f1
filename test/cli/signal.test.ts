import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { serve } from '../http/setup.ts'
import { accessTo, cli } from './setup.ts'

const RUNLANE_AGENTS = fileURLToPath(new URL('../agents/fixtures/signals', import.meta.url))
const { service, createRun, waitForRun } = await serve('pglite', { env: { RUNLANE_AGENTS } })
const env = accessTo(service)
const run = (...args: string[]) => cli(['run', ...args], { env })

test('signal sends what a run waits for, and why says that it does', async () => {
  const parts = [{ read: 'approve' }, { read: 'go' }]
  const { run_id } = await createRun({ agent: 'listener', input: { parts } })
  await waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_human' })

  const why = await run('why', run_id)
  expect(why.stdout).toContain('waiting for the signal "approve"')
  expect(why.stdout).toMatch(/^next +runlane run signal run_\w+ <name> \[json\]$/m)

  const text = await run('signal', run_id, 'approve', '{"by": "ana"}', '--key', 'k')
  expect(text).toMatchObject({ code: 0, stderr: '' })
  expect(text.stdout).toMatch(/^command +signal applied\noutcome +kept$/m)
  expect((await run('signal', run_id, 'approve', '{"by": "ana"}', '--key', 'k')).code).toBe(0)
  const last = await run('signal', run_id, 'go', '--wait', '--json')
  expect(last).toMatchObject({ code: 0, json: [{ output: [{ by: 'ana' }, null] }] })

  const late = await run('signal', run_id, 'go')
  expect(late.code).toBe(1)
  expect(late.stderr).toContain('the run is completed: it reads no signals')
})

test.each([
  [['run_1'], /missing required argument 'name'/],
  [['run_1', 'go', '{nope'], /^runlane: the data: /],
])('signal called wrongly: %j', async (args, said) => {
  const { code, stderr } = await run('signal', ...args)
  expect(code).toBe(2)
  expect(stderr).toMatch(said)
})
