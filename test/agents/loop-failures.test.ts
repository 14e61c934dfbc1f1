import { describe, expect, onTestFinished, test } from 'vitest'
import type { ModelTurn } from '../support/model-server.ts'
import { startHalfAnswerServer } from '../support/half-answer-server.ts'
import { startService } from '../support/service.ts'
import { api } from '../support/api.ts'
import { ask, loopOutside, lookup, serveLoop } from './loop-setup.ts'

const outside = await loopOutside()
const { model, createRun, waitForRun, events, resume } = await serveLoop(outside)

const SHAPES = ['chat', 'claude', 'responses'] as const
const finished = async (agent: string, name: string, turns: readonly ModelTurn[]) => {
  const key = `${agent}: ${name}`
  model.script(key, turns)
  const { run_id } = await createRun(ask(agent, key))
  return { key, run: await waitForRun(run_id) }
}
const count = (key: string, turn?: number): number => model.requestsOf(key, turn).length

describe.concurrent.each(SHAPES)('over %s', (agent) => {
  // Transient kinds are tried three times, with the back-off of the SDK: 2 s and 4 s where the provider names no time.
  test.each([
    { kind: 'auth_error', error: { status: 401 }, tries: 1 },
    { kind: 'auth_error', error: { status: 403 }, tries: 1 },
    { kind: 'billing', error: { status: 402 }, tries: 1 },
    { kind: 'model_not_found', error: { status: 404 }, tries: 1 },
    { kind: 'bad_request', error: { status: 400 }, tries: 1 },
    { kind: 'rate_limit', error: { status: 429, retryAfter: 0 }, tries: 3 },
    { kind: 'server_error', error: { status: 500 }, tries: 3 },
    { kind: 'overloaded', error: { status: 503 }, tries: 3 },
  ])('the status $error.status fails the run with $kind', async ({ kind, error, tries }) => {
    const { run, key } = await finished(agent, `fails with ${error.status}`, [{ error }])
    expect(run).toMatchObject({
      status: 'failed',
      error_code: kind,
      error_message: expect.stringContaining(`status ${error.status}`),
    })
    expect(count(key)).toBe(tries)
    const failed = (await events(run.run_id)).find(
      (one) => one.event_type === 'model_call_finished',
    )
    expect(failed?.payload).toMatchObject({ tool_call_id: 'model_1', outcome: 'failed', kind })
  })

  test('a transient failure is tried again, and the run goes on', async () => {
    const { run, key } = await finished(agent, 'recovers', [
      { error: { status: 429, retryAfter: 0 }, again: { calls: [lookup('a')] } },
      { text: 'Done after all.' },
    ])
    expect(run).toMatchObject({ status: 'completed', output: { text: 'Done after all.' } })
    expect([count(key, 0), count(key, 1)]).toEqual([2, 1])
  })

  test('a stream that breaks off is a network failure, and a resume asks the model again', async () => {
    const text = 'The answer is long enough to break off in the middle of it.'
    const { run, key } = await finished(agent, 'breaks off', [
      { calls: [lookup('a')] },
      { text, chunk: 6, everyMs: 30, cutAfterChunks: 7 },
    ])
    expect(run).toMatchObject({ status: 'failed', error_code: 'network', output: null })
    const before = await events(run.run_id)
    expect(before.map(({ event_type }) => event_type)).toContain('message_delta')
    expect(count(key, 1), 'none after visible output').toBe(1)

    model.replace(key, 1, { text })
    expect((await resume(run.run_id)).status).toBe(202)
    expect(await waitForRun(run.run_id)).toMatchObject({ status: 'completed', output: { text } })
    expect([count(key, 0), count(key, 1)], 'the recorded call is not made again').toEqual([1, 2])
  })

  test('an answer without words and calls fails the run with empty_response', async () => {
    const { run } = await finished(agent, 'empty', [{ text: '' }])
    expect(run).toMatchObject({ status: 'failed', error_code: 'empty_response' })
  })

  test('a connection that is closed without an answer is a network failure', async () => {
    const { run } = await finished(agent, 'closed', [{ chaos: { disconnectRate: 1 } }])
    expect(run).toMatchObject({ status: 'failed', error_code: 'network' })
  })
})

test.each(['context_length_exceeded', 'insufficient_quota'])(
  'a code of the provider, %s, says more than its status',
  async (code) => {
    const kind = { context_length_exceeded: 'context_length', insufficient_quota: 'billing' }[code]
    const error = { status: 429, retryAfter: 0, code }
    const { run } = await finished('chat', code, [{ error }])
    expect(run).toMatchObject({ status: 'failed', error_code: kind })
  },
)

test('an answer that ends before the model has finished is never taken for a whole one', async () => {
  const half = await startHalfAnswerServer()
  onTestFinished(() => half.close())
  const env = { ...outside.env, OPENAI_BASE_URL: half.url, ANTHROPIC_BASE_URL: half.url }
  const service = await startService({ env })
  onTestFinished(async () => void (await service.kill()))
  const other = api(service)
  const runs = await other.createBatch(SHAPES.map((agent) => ask(agent, 'Hello')))
  for (const { run_id } of runs) {
    expect(await other.waitForRun(run_id)).toMatchObject({
      status: 'failed',
      error_code: 'network',
      output: null,
    })
  }
})
