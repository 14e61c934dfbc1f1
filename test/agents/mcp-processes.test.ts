import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { childrenOf, isAlive } from '../support/mcp-servers.ts'
import { ask, lookup, loopOutside, serveLoop } from './loop-setup.ts'

const folder = mkdtempSync(join(tmpdir(), 'runlane-mcp-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const { model, effects, createRun, waitForRun, service, kill, restart } = await serveLoop(
  await loopOutside(),
  { RUNLANE_LEASE: '1s', MCP_MEMORY: join(folder, 'memory.jsonl') },
)

const servers = (): number[] => childrenOf(service().pid, '@modelcontextprotocol/server-')
const echo = (message: string) => ({ name: 'echo', input: { message } })
const endless = {
  name: 'trigger-long-running-operation',
  input: { duration: 600, steps: 3000 },
}

/** A run that has used both servers and is now inside a call of one; all server processes: each thread has its own. */
const inCall = async (key: string): Promise<{ run_id: string; pids: number[] }> => {
  model.script(key, [{ calls: [endless, { name: 'kg_read_graph', input: {} }] }, { text: 'Done.' }])
  const { run_id } = await createRun(ask('mcp-both', key))
  await waitForRun(run_id, { until: ({ phase }) => /operation: \d+\/3000$/.test(phase ?? '') })
  const pids = servers()
  expect(pids.length).toBeGreaterThanOrEqual(2)
  return { run_id, pids }
}
const gone = (pids: readonly number[]) =>
  eventually(() => !pids.some(isAlive), { message: `the end of the servers ${pids.join(', ')}` })

test('a server that was killed between two calls of a run is started again for the next', async () => {
  model.script('killed server', [
    { calls: [echo('one')] },
    { calls: [lookup('a', { hang: true })] },
    { calls: [echo('two')] },
    { text: 'Both echoed.' },
  ])
  const { run_id } = await createRun(ask('mcp-both', 'killed server'))
  await eventually(() =>
    effects.calls.some(({ idempotencyKey }) => idempotencyKey?.startsWith(run_id)),
  )
  const before = servers()
  expect(before).toHaveLength(2)
  for (const pid of before) process.kill(pid, 'SIGKILL')
  await gone(before)
  effects.release()

  expect(await waitForRun(run_id)).toMatchObject({
    status: 'completed',
    output: { text: 'Both echoed.' },
    attempt: 1,
  })
  const answers = model
    .requestsOf('killed server', 3)
    .flatMap(({ body }) => body.messages)
    .flatMap(({ role, content }) => (role === 'tool' ? [content] : []))
  expect(answers).toEqual(['"Echo: one"', '"A"', '"Echo: two"'])
  expect(servers().some((pid) => before.includes(pid))).toBe(false)
})

test('a server that dies in the middle of a call fails that call, and the model is told', async () => {
  const { run_id, pids } = await inCall('dies in a call')
  for (const pid of pids) process.kill(pid, 'SIGKILL')
  expect(await waitForRun(run_id)).toMatchObject({ status: 'completed', output: { text: 'Done.' } })
  const [told] = model
    .requestsOf('dies in a call', 1)
    .flatMap(({ body }) => body.messages)
    .filter(({ role }) => role === 'tool')
  expect(told?.content).toMatch(/closed/i)
})

test('no server outlives a service that was killed with kill -9, and its run goes on after', async () => {
  const { run_id, pids } = await inCall('kill -9')
  await kill()
  await gone(pids)
  await restart()
  // The call changes nothing outside, so it is made again by itself.
  await waitForRun(run_id, { until: ({ phase }) => /operation: \d+\/3000$/.test(phase ?? '') })
  expect(servers().filter((pid) => pids.includes(pid))).toEqual([])
})

test('no server outlives a service that was told to stop', async () => {
  const { pids } = await inCall('SIGTERM')
  await service().stop()
  await gone(pids)
})

test('no server outlives a service that was told to stop, even one that ignores the end of its input', async () => {
  await restart()
  const key = 'stubborn'
  model.script(key, [{ calls: [echo('hello')] }, { text: 'Done.' }])
  const { run_id } = await createRun(ask('mcp-stubborn', key))
  expect((await waitForRun(run_id)).status).toBe('completed')
  const pids = childrenOf(service().pid, 'sleep 300')
  expect(pids).toHaveLength(1)
  await service().stop()
  await gone(pids)
})
