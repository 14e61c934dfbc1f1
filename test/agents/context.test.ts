import { expect, test } from 'vitest'
import { serve } from '../http/setup.ts'
import { assemble, type Delta } from '../support/assemble.ts'
import { moduleFolder } from './module-folder.ts'

const agent = (name: string, body: string): string => `
import { defineAgent, tool, z } from 'runlane'
const pay = tool({
  input: z.object({ to: z.string(), cents: z.number() }),
  execute: async () => new Promise(() => {}),
})
export default defineAgent({ name: '${name}', tools: { pay }, async run(ctx) { ${body} } })
`
const folder = moduleFolder({
  'nested.ts': agent(
    'nested',
    "return ctx.step('outer', async () => await ctx[String(ctx.input)]('inner', ctx.input === 'step' ? () => 1 : {}))",
  ),
  'talker.ts': agent(
    'talker',
    "for (let i = 0; i < 100; i++) await ctx.say('line ' + i); await ctx.say('x'.repeat(4_000), { chunks: 200, ms: 2_000 }); await ctx.say('a\\0b')",
  ),
  'payer.ts': agent('payer', "await ctx.tool('pay', { to: 'ana', cents: 4900 })"),
  'setter.ts': agent('setter', "process.env.OPENAI_BASE_URL = 'nonsense'; return 1"),
})
const { createRun, waitForRun, events, get, service, request } = await serve('postgres', {
  env: {
    RUNLANE_AGENTS: folder.path,
    OPENAI_BASE_URL: 'http://127.0.0.1:9/v1',
    RUNLANE_LEASE: '1s',
  },
})

test.each(['step', 'tool', 'say'])(
  'ctx.%s inside of a step is refused at once: a resume could not find its way',
  async (what) => {
    const run = await createRun({ agent: 'nested', input: what })
    expect(await waitForRun(run.run_id)).toMatchObject({
      status: 'failed',
      error_code: 'nested_call',
      error_message: expect.stringMatching(/ctx\.\w+ was called inside of ctx\.step\("outer"\)/),
    })
  },
)

test('speech comes in at most ten deltas a second, and adds up to what was said', async () => {
  const run = await createRun({ agent: 'talker' })
  expect(await waitForRun(run.run_id)).toMatchObject({ status: 'completed' })
  const told = await events(run.run_id)
  const at = told
    .filter(({ event_type }) => event_type === 'message_delta')
    .map((event) => Date.parse(event.created_at))
  const crowded = at.filter((first, nth) => (at[nth + 10] ?? Infinity) - first < 1_000)
  expect(crowded).toEqual([])
  expect(at.length).toBeGreaterThan(10)
  const messages = told.filter(({ event_type }) => event_type === 'message')
  expect(messages).toHaveLength(102)
  expect(messages.at(-1)?.payload.text).toBe('a\uFFFDb')
  const deltas = told.filter(({ event_type }) => event_type === 'message_delta')
  const texts = assemble(deltas.map(({ payload }) => payload as unknown as Delta))
  for (const { payload } of messages) {
    const text = texts[String(payload['message_id'])] ?? ''
    expect(String(payload.text).startsWith(text)).toBe(true)
  }
})

test(
  'what an agent writes into its environment changes no provider of others',
  { timeout: 60_000 },
  async () => {
    const setter = await createRun({ agent: 'setter' })
    expect(await waitForRun(setter.run_id)).toMatchObject({ status: 'completed' })
    const asking = await createRun({ agent: 'assistant', input: { message: 'hello' } })
    // It still asks the server of the service, which is not there: `network`, and not an address that is none.
    const ended = await waitForRun(asking.run_id, { timeoutMs: 50_000 })
    expect(ended).toMatchObject({ error_code: 'network' })
  },
)

test(
  'a call of unknown outcome is asked about with its arguments',
  { timeout: 60_000 },
  async () => {
    const run = await createRun({ agent: 'payer' })
    await waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_tool' })
    const [call] = (await get(`/runs/${run.run_id}/tool-results`)).body.tool_results
    expect(call).toMatchObject({ tool: 'pay', input: { to: 'ana', cents: 4900 } })
    await service.kill()
    const next = await service.restart()
    try {
      const asked = await waitForRun(run.run_id, {
        until: ({ status }) => status === 'waiting_on_human',
        timeoutMs: 50_000,
      })
      expect(asked.status).toBe('waiting_on_human')
      const question = (await events(run.run_id)).find(
        ({ event_type }) => event_type === 'human_asked',
      )
      expect(question?.payload['prompt']).toContain('with {"to":"ana","cents":4900}')
      expect((await request('POST', `/runs/${run.run_id}/cancel`, {})).status).toBe(202)
    } finally {
      await next.kill()
    }
  },
)
