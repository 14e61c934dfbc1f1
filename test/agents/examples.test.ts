import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Api, api } from '../support/api.ts'
import { type ModelServer, startModelServer } from '../support/model-server.ts'
import { type Service, startService } from '../support/service.ts'

const folder = mkdtempSync(join(tmpdir(), 'runlane-examples-'))
let model: ModelServer
let pages: Server
let service: Service
let client: Api
let site = ''

beforeAll(async () => {
  model = await startModelServer()
  pages = createServer((request, response) => {
    if (request.url === '/gone') response.writeHead(404).end()
    else
      response.end(
        `<html><script>ignored()</script><p>Page <b>${request.url}</b> speaks.</p></html>`,
      )
  })
  await new Promise<void>((listening) => pages.listen(0, '127.0.0.1', listening))
  site = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  service = await startService({
    env: {
      OPENAI_BASE_URL: model.url,
      RUNLANE_AGENTS: resolve(import.meta.dirname, '../../src/examples'),
      TMPDIR: folder,
    },
  })
  client = api(service)
})
afterAll(async () => {
  await service.stop()
  await model.close()
  pages.close()
  rmSync(folder, { recursive: true })
})

test('every example is an agent without a problem', async () => {
  const { body } = await client.get('/agents')
  expect(body.problems).toEqual([])
  const names = (body.agents as { name: string }[]).map(({ name }) => name)
  expect(names).toEqual(expect.arrayContaining(['support', 'researcher', 'librarian', 'assistant']))
})

test('support: looks orders up, refunds, keeps the journal, answers', async () => {
  const message = 'My kettle never came. ana@example.com'
  model.script(message, [
    { calls: [{ name: 'find_orders', input: { email: 'ana@example.com' }, id: 'call_0' }] },
    {
      calls: [
        { name: 'refund', input: { order_id: 'A-1001', cents: 4900 }, id: 'call_0' },
        { name: 'refund', input: { order_id: 'A-1002', cents: 2900 }, id: 'call_1' },
        { name: 'update_journal', input: { current_state: 'kettle refunded' }, id: 'call_2' },
      ],
    },
    { text: 'I have refunded your kettle.' },
  ])
  const run = await client.createRun({ agent: 'support', input: { message } })
  const ended = await client.waitForRun(run.run_id)
  expect(ended).toMatchObject({
    status: 'completed',
    output: { text: 'I have refunded your kettle.' },
    model: 'openai:gpt-5.2',
    usage: { input_tokens: 30, output_tokens: 15 },
  })
  const { body } = await client.get(`/runs/${run.run_id}/tool-results`)
  const calls = (body.tool_results as { kind: string }[]).filter(({ kind }) => kind === 'tool')
  expect(calls).toMatchObject([
    { tool: 'find_orders', outcome: 'succeeded', result: [{ item: 'kettle' }, { item: 'teapot' }] },
    { tool: 'refund', outcome: 'succeeded', result: { refunded_cents: 4900 } },
    { tool: 'refund', outcome: 'failed', error_message: 'not refundable' },
  ])
})

test('researcher: reads pages beside each other, streams the answer and not its notes', async () => {
  const question = 'Who speaks?'
  const urls = [`${site}/one`, `${site}/two`, `${site}/gone`]
  const told = ['"Page /one speaks."', '"Page /two speaks."', `"${site}/gone answered 404"`]
  for (const [nth, url] of urls.entries())
    model.script(`Question: ${question}\nPage ${url}:\n${told[nth]}`, [{ text: `note ${nth}` }])
  const notes = urls.map((url, nth) => `${url}\nnote ${nth}`).join('\n\n')
  model.script(`Question: ${question}\n\nNotes:\n${notes}`, [{ text: 'Pages one and two speak.' }])

  const run = await client.createRun({ agent: 'researcher', input: { question, urls } })
  expect(await client.waitForRun(run.run_id)).toMatchObject({
    status: 'completed',
    output: { answer: 'Pages one and two speak.', sources: urls },
  })
  const events = await client.events(run.run_id)
  const texts = events.flatMap(({ event_type, payload }) =>
    event_type === 'message' ? [payload.text] : [],
  )
  expect(texts).toEqual(['Pages one and two speak.'])
  const deltas = events.filter(({ event_type }) => event_type === 'message_delta')
  expect(deltas.map(({ payload }) => payload.text).join('')).toBe('Pages one and two speak.')
})

test('librarian: remembers through an MCP server', async () => {
  const entities = [{ name: 'Ana', entityType: 'person', observations: ['likes tea'] }]
  model.script('Remember that Ana likes tea.', [
    { calls: [{ name: 'memory_create_entities', input: { entities }, id: 'call_0' }] },
    { text: 'I will.' },
  ])
  model.script('What does Ana like?', [
    { calls: [{ name: 'memory_search_nodes', input: { query: 'Ana' }, id: 'call_0' }] },
    { text: 'Tea.' },
  ])
  for (const message of ['Remember that Ana likes tea.', 'What does Ana like?']) {
    const run = await client.createRun({ agent: 'librarian', input: { message } })
    expect(await client.waitForRun(run.run_id)).toMatchObject({ status: 'completed' })
  }
  const [, answered] = model.requestsOf('What does Ana like?')
  expect(JSON.stringify(answered?.body.messages)).toContain('likes tea')
})
