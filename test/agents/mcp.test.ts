import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { McpConnections } from '../../src/agents/mcp.ts'
import { eventually } from '../support/eventually.ts'
import type { ModelTurn } from '../support/model-server.ts'
import { startEverything } from '../support/mcp-servers.ts'
import { ask, loopOutside, serveLoop } from './loop-setup.ts'

const folder = mkdtempSync(join(tmpdir(), 'runlane-mcp-'))
const everything = await startEverything()
afterAll(async () => {
  await everything.stop()
  rmSync(folder, { recursive: true, force: true })
})
const tap = join(folder, 'tap.jsonl')

const { model, createRun, waitForRun, events, cancel, get } = await serveLoop(await loopOutside(), {
  MCP_URL: everything.url,
  MCP_TAP: tap,
  MCP_MEMORY: join(folder, 'memory.jsonl'),
})

const post = (agent: string, name: string, turns: readonly ModelTurn[]) => {
  const key = `${agent}: ${name}`
  model.script(key, turns)
  return createRun(ask(agent, key))
}
const finished = async (agent: string, name: string, turns: readonly ModelTurn[]) => {
  const { run_id } = await post(agent, name, turns)
  return waitForRun(run_id)
}
const toolResults = async (run_id: string): Promise<Record<string, unknown>[]> =>
  (await get(`/runs/${run_id}/tool-results`)).body.tool_results.filter(
    ({ kind }: { kind: string }) => kind === 'tool',
  )

test('the time-out that is given for a server, and no other, is the limit of the clock of its calls', async () => {
  const connections = new McpConnections({ version: 'test' })
  const { signal } = new AbortController()
  const limits = async (more: { timeout?: string }) => {
    const tools = await connections.tools({ url: everything.url, ...more }, signal)
    return new Set(tools.map(([, { timeout_ms, silence_ms }]) => timeout_ms ?? silence_ms))
  }
  expect(await limits({ timeout: '10m' })).toEqual(new Set([600_000]))
  expect(await limits({})).toEqual(new Set([undefined]))
  await connections.close()
})

test('a model uses the tools of two servers over stdio in one run', async () => {
  const entities = [{ name: 'Runlane', entityType: 'service', observations: ['keeps order'] }]
  const run = await finished('mcp-both', 'both', [
    {
      calls: [
        { name: 'get-sum', input: { a: 2, b: 40 } },
        { name: 'echo', input: { message: 'hello' } },
        { name: 'kg_create_entities', input: { entities } },
      ],
    },
    {
      calls: [
        { name: 'kg_open_nodes', input: { names: ['Runlane'] } },
        { name: 'get-structured-content', input: { location: 'Chicago' } },
      ],
    },
    { text: 'Done with both.' },
  ])
  expect(run).toMatchObject({ status: 'completed', output: { text: 'Done with both.' } })
  expect(await toolResults(run.run_id)).toMatchObject([
    {
      tool: 'get-sum',
      effects: 'none',
      outcome: 'succeeded',
      result: 'The sum of 2 and 40 is 42.',
    },
    { tool: 'echo', outcome: 'succeeded', result: 'Echo: hello' },
    { tool: 'kg_create_entities', effects: 'unsafe', outcome: 'succeeded' },
    { tool: 'kg_open_nodes', outcome: 'succeeded', result: { entities } },
    { tool: 'get-structured-content', result: { temperature: 36, humidity: 82 } },
  ])
  const [asked] = model.requestsOf('mcp-both: both')
  const offered = asked?.body.tools?.map((tool) => tool.function.name)
  expect(offered).toEqual(
    expect.arrayContaining(['lookup', 'echo', 'kg_read_graph', 'update_journal']),
  )
})

test('a model uses the tools of a server over streamable HTTP', async () => {
  const run = await finished('mcp-remote', 'remote', [
    {
      calls: [
        { name: 'get-sum', input: { a: 1, b: 2 } },
        { name: 'get-sum', input: { a: 'x' } },
      ],
    },
    { text: 'Three.' },
  ])
  expect(run).toMatchObject({ status: 'completed', output: { text: 'Three.' } })
  expect(await toolResults(run.run_id)).toMatchObject([
    { outcome: 'succeeded', result: 'The sum of 1 and 2 is 3.' },
    { outcome: 'failed', error_message: expect.stringContaining('nvalid') },
  ])
})

test('a server over HTTP that was started anew is connected to anew, without a word to the model', async () => {
  const sum = { name: 'get-sum', input: { a: 1, b: 2 } }
  const askSum = (key: string) =>
    finished('mcp-remote', key, [{ calls: [sum] }, { text: 'Three.' }])
  await askSum('before the restart')
  await everything.restart()
  for (const key of ['after the restart', 'and once more']) {
    const run = await askSum(key)
    expect(await toolResults(run.run_id)).toMatchObject([
      { outcome: 'succeeded', result: 'The sum of 1 and 2 is 3.' },
    ])
  }
})

const slow = { name: 'trigger-long-running-operation', input: { duration: 2, steps: 4 } }
const endless = { ...slow, input: { duration: 600, steps: 3000 } }

test.each(['mcp-both', 'mcp-remote'])(
  'progress of a long call shows on the run (%s)',
  async (agent) => {
    const { run_id } = await post(agent, 'progress', [{ calls: [slow] }, { text: 'Done.' }])
    const seen = await waitForRun(run_id, {
      until: ({ phase }) => /operation: \d\/4$/.test(phase ?? ''),
    })
    expect(seen).toMatchObject({ status: 'waiting_on_tool', tool: slow.name })
    expect((await waitForRun(run_id)).status).toBe('completed')
  },
)

test('a cancel reaches a server over stdio, and the run ends as cancelled', async () => {
  const { run_id } = await post('mcp-tapped', 'cancel', [{ calls: [endless] }, { text: 'Never.' }])
  await waitForRun(run_id, { until: ({ phase }) => /operation: \d+\/3000$/.test(phase ?? '') })
  await cancel(run_id)
  expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
  const sent = () =>
    readFileSync(tap, 'utf8')
      .trim()
      .split('\n')
      .map(
        (line) =>
          JSON.parse(line) as {
            id?: number
            method: string
            params?: { requestId?: number; name?: string }
          },
      )
  const call = sent().find(({ params }) => params?.name === endless.name)
  await eventually(() =>
    sent().some(
      ({ method, params }) =>
        method === 'notifications/cancelled' && params?.requestId === call?.id,
    ),
  )
  expect(model.requestsOf('mcp-tapped: cancel')).toHaveLength(1)
  const last = (await events(run_id)).at(-1)
  expect(last?.payload).toMatchObject({ to: 'cancelled' })
})

test('a cancel reaches a server over streamable HTTP, and the run ends as cancelled', async () => {
  const { run_id } = await post('mcp-remote', 'cancel', [{ calls: [endless] }, { text: 'Never.' }])
  await waitForRun(run_id, { until: ({ phase }) => /operation: \d+\/3000$/.test(phase ?? '') })
  await cancel(run_id)
  expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
  await eventually(() =>
    everything.received.some((body) => body.includes('notifications/cancelled')),
  )
})

test.each(['mcp-missing', 'mcp-dying'])(
  'a server that cannot be started is mcp_unavailable (%s)',
  async (agent) => {
    const run = await finished(agent, 'start', [{ text: 'Never asked.' }])
    expect(run).toMatchObject({
      status: 'failed',
      error_code: 'mcp_unavailable',
      error_message: expect.stringContaining('the MCP server'),
    })
    expect(model.requestsOf(`${agent}: start`)).toHaveLength(0)
  },
)
