import postgres from 'postgres'
import { describe, expect, test } from 'vitest'
import type { RunEvent } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import type { ModelRequest, ModelTurn } from '../support/model-server.ts'
import { ask, lookup, loopOutside, serveLoop } from './loop-setup.ts'

/** The same agent over OpenAI chat completions, Anthropic messages, and OpenAI Responses as a model object of the AI SDK. */
const SHAPES = [
  ['chat', 'openai:gpt-test'],
  ['claude', 'anthropic:claude-test'],
  ['responses', 'openai.responses:gpt-test'],
] as const

const { model, effects, databaseUrl, ...service } = await serveLoop(await loopOutside())
const { createRun, waitForRun, events } = service

/** Posts a run whose model answers so; the script is told from others by its name. */
const post = async (agent: string, name: string, turns: readonly ModelTurn[]) => {
  const key = `${agent}: ${name}`
  model.script(key, turns)
  const { run_id } = await createRun(ask(agent, key))
  return { run_id, key }
}
const finished = async (agent: string, name: string, turns: readonly ModelTurn[]) => {
  const { run_id, key } = await post(agent, name, turns)
  return { run: await waitForRun(run_id), run_id, key, requests: model.requestsOf(key) }
}

const callsOf = (run_id: string) =>
  effects.calls.filter((call) => call.idempotencyKey?.startsWith(`${run_id}:`))

/** What the model was sent back for each of its calls, by the provider's id, beside what it had asked. */
const answeredCalls = ({ body }: ModelRequest) => {
  const asked = body.messages.flatMap((message) => message.tool_calls ?? [])
  const answers = body.messages.filter((message) => message.role === 'tool')
  expect(new Set(asked.map(({ id }) => id)).size, 'ids are unique').toBe(asked.length)
  expect(answers.map((answer) => answer.tool_call_id)).toEqual(asked.map(({ id }) => id))
  return asked.map((call, index) => [call.function.arguments, answers[index]?.content] as const)
}

const first = (all: readonly RunEvent[], type: string): number =>
  all.find((event) => event.event_type === type)?.sequence ?? Number.NaN

describe.each(SHAPES)('over %s', (agent, modelId) => {
  test('each tool is called once under its own id, and its result goes to the call that asked', async () => {
    const { run, run_id, requests } = await finished(agent, 'parallel tools', [
      {
        text: 'I look up two things at once.',
        calls: [lookup('a', { id: 'call_0', delay_ms: 80 }), lookup('b', { id: 'call_1' })],
      },
      // Servers that number the calls of each answer anew.
      { calls: [lookup('c', { id: 'call_0' }), lookup('d', { id: 'call_1', delay_ms: 50 })] },
      { text: 'All looked up.' },
    ])
    expect(run).toMatchObject({ status: 'completed', output: { text: 'All looked up.' } })

    const called = callsOf(run_id).map(({ idempotencyKey, body }) => [
      idempotencyKey,
      (body as { q: string }).q,
    ])
    expect(Object.fromEntries(called)).toEqual({
      [`${run_id}:tool_2`]: 'a',
      [`${run_id}:tool_3`]: 'b',
      [`${run_id}:tool_5`]: 'c',
      [`${run_id}:tool_6`]: 'd',
    })
    expect(called).toHaveLength(4)

    expect(requests.map(({ turn }) => turn)).toEqual([0, 1, 2])
    const answered = requests.slice(1).map(answeredCalls)
    expect(answered.map((calls) => calls.length)).toEqual([2, 4])
    for (const [asked, answer] of answered.flat()) {
      expect(answer).toBe(JSON.stringify((JSON.parse(asked) as { reply: string }).reply))
    }

    const { tool_results } = (await service.get(`/runs/${run_id}/tool-results`)).body
    expect(tool_results).toMatchObject([
      { tool_call_id: 'model_1', kind: 'model', outcome: 'succeeded' },
      { tool_call_id: 'tool_2', provider_call_id: 'call_0', result: 'A' },
      { tool_call_id: 'tool_3', provider_call_id: 'call_1', result: 'B' },
      { tool_call_id: 'model_4' },
      { tool_call_id: 'tool_5', provider_call_id: 'call_0', result: 'C' },
      { tool_call_id: 'tool_6', provider_call_id: 'call_1', result: 'D' },
      { tool_call_id: 'model_7' },
    ])
  })

  test('two calls of one answer under the same id are two calls', async () => {
    const { run, run_id, requests } = await finished(agent, 'same id', [
      { calls: [lookup('a', { id: 'call_0' }), lookup('b', { id: 'call_0' })] },
      { text: 'Done.' },
    ])
    expect(run).toMatchObject({ status: 'completed', output: { text: 'Done.' } })
    expect(callsOf(run_id)).toHaveLength(2)
    const [, last] = requests
    expect(last && answeredCalls(last).map(([, answer]) => answer)).toEqual(['"A"', '"B"'])
  })

  test('the tokens of all model calls are summed on the run', async () => {
    const { run, run_id } = await finished(agent, 'usage', [
      { calls: [lookup('a')], usage: [100, 20] },
      { calls: [lookup('b')], usage: [250, 30] },
      { text: 'Done.', usage: [400, 7] },
    ])
    expect(run['usage']).toEqual({ input_tokens: 750, output_tokens: 57 })
    expect(run['model']).toBe(modelId)
    const done = (await events(run_id)).filter((one) => one.event_type === 'model_call_finished')
    expect(done.map(({ payload }) => payload)).toMatchObject([
      { model: modelId, finish_reason: 'tool-calls', usage: { input_tokens: 100 } },
      { model: modelId, finish_reason: 'tool-calls', usage: { input_tokens: 250 } },
      { model: modelId, finish_reason: 'stop', usage: { input_tokens: 400 } },
    ])
  })

  test('the answer with its tool calls is recorded before any of its tools runs', async () => {
    const { run_id } = await post(agent, 'recorded first', [
      { text: 'Looking it up.', calls: [lookup('a', { hang: true }), lookup('b')] },
      { text: 'Done.' },
    ])
    await eventually(() => callsOf(run_id).length === 2)
    // Both tools are being invoked: the answer that asked for them is in the envelope, whole.
    const { tool_results } = (await service.get(`/runs/${run_id}/tool-results`)).body
    expect(tool_results[0]).toMatchObject({
      kind: 'model',
      outcome: 'succeeded',
      result: {
        text: 'Looking it up.',
        tool_calls: [
          { name: 'lookup', input: { q: 'a' } },
          { name: 'lookup', input: { q: 'b' } },
        ],
      },
    })
    effects.release()
    expect((await waitForRun(run_id)).status).toBe('completed')
    const all = await events(run_id)
    expect(first(all, 'message_delta')).toBeLessThan(first(all, 'model_call_finished'))
    expect(first(all, 'model_call_finished')).toBeLessThan(first(all, 'message'))
    expect(first(all, 'message')).toBeLessThan(first(all, 'tool_started'))
    expect(all.find((one) => one.event_type === 'message')?.payload).toMatchObject({
      role: 'assistant',
      text: 'Looking it up.',
      message_id: 'model_1',
    })
    expect(first(all, 'tool_started')).toBeLessThan(first(all, 'tool_finished'))
  })

  test('a tool that fails, is unknown or gets what does not fit is told to the model, not the end', async () => {
    const failing = { name: 'lookup', input: { q: 'a', status: 500 } }
    const { run, run_id, requests } = await finished(agent, 'failing tools', [
      { calls: [failing, { name: 'nothing', input: {} }, { name: 'lookup', input: { p: 1 } }] },
      { text: 'I go on without.' },
    ])
    expect(run).toMatchObject({ status: 'completed', output: { text: 'I go on without.' } })
    expect(callsOf(run_id)).toHaveLength(1)
    const [, last] = requests
    expect(last && answeredCalls(last).map(([, answer]) => answer)).toEqual([
      expect.stringContaining('the outside answered 500'),
      expect.stringContaining('has no tool nothing'),
      expect.stringContaining('invalid input: q'),
    ])
  })

  test('the journal is written by the model itself', async () => {
    const journal = (input: unknown) => ({ name: 'update_journal', input })
    const { run, run_id, requests } = await finished(agent, 'journal', [
      { calls: [journal({ objective: 'find a', blockers: 'none' }), lookup('a')] },
      { calls: [journal({ mood: 'good' }), journal({ blockers: 'no a', next_action: 'ask' })] },
      { text: 'Noted.' },
    ])
    expect(run.status).toBe('completed')
    const [, , last] = requests
    const answers = last && answeredCalls(last).map(([, answer]) => answer)
    expect(answers?.[2]).toContain('takes objective')
    const types = (await events(run_id)).map(({ event_type }) => event_type)
    expect(types.filter((type) => type === 'journal_updated')).toHaveLength(2)

    const sql = postgres(databaseUrl, { max: 1 })
    const rows = await sql`select content from runlane.agent_run_journals where run_id = ${run_id}`
    await sql.end()
    expect(rows).toEqual([
      { content: { objective: 'find a', blockers: 'no a', next_action: 'ask' } },
    ])
  })

  test('a model that never answers in words ends the run after its last turn', async () => {
    const turns = Array.from({ length: 6 }, (_, turn) => ({ calls: [lookup(`q${turn}`)] }))
    const { run, requests } = await finished(agent, 'endless', turns)
    expect(run).toMatchObject({
      status: 'failed',
      error_code: 'max_turns_exceeded',
      error_message: expect.stringContaining('5 times'),
    })
    expect(requests).toHaveLength(5)
  })
})
