import { afterAll, describe, expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { expectProblem, scripted, serve } from './setup.ts'

const outside = await startEffectServer()
afterAll(() => outside.close())
const client = await serve('postgres')
const { createRun, waitForRun, get, post } = client

type Steps = Record<string, unknown>[]
let made = 0
/** A path of the outside world that belongs to one test. */
const place = (): string => `${outside.url}/${(made += 1)}`
const http = (where: string, name: string, more: object = {}) => ({
  http: `${where}/${name}`,
  ...more,
})
/** What was called under this address, in order of arrival. */
const callsAt = (where: string): string[] =>
  outside.calls
    .filter(({ path }) => path.startsWith(`${new URL(where).pathname}/`))
    .map(({ path }) => path.split('/').at(-1) ?? '')

const run = async (steps: Steps, more = {}): Promise<Run> => createRun(scripted(steps, more))
const ended = async (steps: Steps, more = {}): Promise<Run> =>
  waitForRun((await run(steps, more)).run_id)
type Checkpoint = { checkpoint_id: string; type: string; sequence: number }
const checkpointsOf = async ({ run_id }: Run): Promise<Checkpoint[]> =>
  (await get(`/runs/${run_id}/checkpoints`)).body.checkpoints
const nth = async (of: Run, index: number): Promise<string> =>
  (await checkpointsOf(of)).at(index)?.checkpoint_id ?? 'none'
const fork = ({ run_id }: Run, checkpoint_id: string, more = {}, headers = {}) =>
  post(`/runs/${run_id}/fork`, { checkpoint_id, ...more }, headers)
const forked = async (of: Run, checkpoint_id: string, more = {}): Promise<Run> => {
  const answer = await fork(of, checkpoint_id, more)
  expect(answer.status, JSON.stringify(answer.body)).toBe(202)
  return waitForRun(answer.body.run_id)
}
const callIdsOf = async ({ run_id }: Run): Promise<string[]> =>
  (await get(`/runs/${run_id}/tool-results`)).body.tool_results.map(
    (call: { tool_call_id: string }) => call.tool_call_id,
  )
const toldOf = async ({ run_id }: Run, ...types: string[]) =>
  (await client.events(run_id)).filter(({ event_type }) => types.includes(event_type))

describe('a fork', () => {
  test('of each checkpoint makes no recorded call again, and each later one once', async () => {
    const names = ['one', 'two', 'three']
    const where = place()
    const original = await ended(names.map((name) => http(where, name)))
    expect(callsAt(where)).toEqual(names)
    const checkpoints = await checkpointsOf(original)
    expect(checkpoints.map(({ type }) => type)).toEqual([
      'input',
      ...names.map(() => 'tool_result'),
      'final',
    ])

    for (const [recorded, { checkpoint_id }] of checkpoints.entries()) {
      const before = callsAt(where).length
      const copy = await forked(original, checkpoint_id)

      expect(copy).toMatchObject({ status: 'completed', attempt: 1 })
      expect(callsAt(where).slice(before)).toEqual(names.slice(recorded))
      const kept = original.output.results.slice(0, recorded)
      expect(copy.output.results.slice(0, recorded)).toEqual(kept)
    }
  })

  test('is what its origin is, alone in its lane, and begins with a replay', async () => {
    const where = place()
    const settings = {
      conversation_id: 'family',
      owner: '@ana',
      metadata: { order: 7 },
      priority: 3,
      surface: 'chat',
    }
    const original = await ended([http(where, 'one'), { step: 'two', result: 2 }], settings)
    const checkpoint_id = await nth(original, 1)

    const { status, headers, body } = await fork(original, checkpoint_id)

    expect({ status, location: headers.get('location') }).toEqual({
      status: 202,
      location: `/runs/${body.run_id}`,
    })
    const forked_from = { run_id: original.run_id, checkpoint_id }
    const { metadata, ...same } = settings
    expect(body).toMatchObject({
      ...same,
      agent: 'scripted',
      metadata,
      queue: 'default',
      input: original.input,
      parent_run_id: null,
      root_run_id: body.run_id,
      lane_key: `fork:${body.run_id}`,
      created_by: 'token:admin',
      forked_from,
    })
    const copy = await waitForRun(body.run_id)
    expect(copy.output).toEqual(original.output)
    const told = await toldOf(copy, 'run_created', 'run_status_changed', 'run_resumed')
    expect(told.map(({ payload }) => payload.to ?? payload)).toMatchObject([
      { forked_from },
      'queued',
      'resuming',
      { attempt: 1, replayed: 1, checkpoint_id: `${copy.run_id}.4` },
      'running',
      'completed',
    ])
    expect(await toldOf(copy, 'tool_finished')).toMatchObject([
      { payload: { tool: 'http', outcome: 'replayed' } },
    ])
    const { attempts } = (await get(`/runs/${copy.run_id}/attempts`)).body
    expect(attempts).toMatchObject([{ attempt: 1, outcome: 'completed' }])
    expect((await client.run(original.run_id)).forked_from).toBeNull()
  })

  test('out of a batch has the calls that had ended, however they were asked for', async () => {
    const where = place()
    const slow = http(where, 'slow', { body: { delay_ms: 400 }, call_id: 'slow' })
    const quick = http(where, 'quick', { call_id: 'quick' })
    const middle = http(where, 'middle', { body: { delay_ms: 150 }, call_id: 'middle' })
    const original = await ended([{ parallel: [slow, quick, middle] }, http(where, 'after')])
    expect(callsAt(where).toSorted()).toEqual(['after', 'middle', 'quick', 'slow'])

    const expected = [['middle', 'slow'], ['slow'], []]
    for (const [index, again] of expected.entries()) {
      const before = callsAt(where).length
      const copy = await forked(original, await nth(original, index + 1))
      expect(copy.status).toBe('completed')
      const calls = callsAt(where).slice(before)
      expect(calls.at(-1)).toBe('after')
      expect(calls.slice(0, -1).toSorted()).toEqual(again)
      expect(await callIdsOf(copy)).toEqual(await callIdsOf(original))
    }
  })

  test('of a fork has what that took over, and its input checkpoint nothing of it', async () => {
    const where = place()
    const original = await ended([http(where, 'one'), http(where, 'two')])
    const first = await forked(original, await nth(original, 1))
    expect(await checkpointsOf(first)).toMatchObject([
      { type: 'input', sequence: 3 },
      { type: 'tool_result', sequence: 4 },
      { type: 'tool_result' },
      { type: 'final' },
    ])
    const calls = async (index: number): Promise<string[]> => {
      const before = callsAt(where).length
      await forked(first, await nth(first, index))
      return callsAt(where).slice(before)
    }
    expect(await calls(0)).toEqual(['one', 'two'])
    expect(await calls(1)).toEqual(['two'])
    expect(await calls(2)).toEqual([])
  })

  test('takes a run over that has failed, was cancelled, or goes on', async () => {
    const where = place()
    const failed = await ended([http(where, 'one'), { fail: 'no luck' }])
    const again = await forked(failed, await nth(failed, 1))
    expect(again).toMatchObject({ status: 'failed', error_message: 'no luck' })
    expect((await client.run(again.run_id)).metadata.resume_available).toBe(true)

    const steps = [http(where, 'two'), { think: 60_000 }]
    const going = await run(steps)
    await eventually(async () => (await checkpointsOf(going)).length === 2)
    const beside = (await fork(going, await nth(going, 1))).body as Run
    await waitForRun(beside.run_id, { until: ({ status }) => status === 'running' })
    expect(await client.run(going.run_id)).toMatchObject({ status: 'running' })
    await client.cancel(going.run_id)
    const cancelled = await waitForRun(going.run_id)
    expect(cancelled.status).toBe('cancelled')
    const late = (await fork(cancelled, await nth(cancelled, 1))).body as Run
    for (const one of [beside, late]) {
      await waitForRun(one.run_id, { until: ({ status }) => status === 'running' })
      await client.cancel(one.run_id)
    }
    expect(callsAt(where)).toEqual(['one', 'two'])
  })

  test('of a child reports to nobody, and of its parent keeps the reports that were in', async () => {
    const where = place()
    const child = (name: string) => ({
      delegate: { agent: 'scripted', input: { steps: [http(where, name)] } },
    })
    const parent = await ended([child('first'), child('second')])
    const [second, first] = (await get(`/runs/${parent.run_id}/children`)).body.children as Run[]

    const alone = await forked(first as Run, await nth(first as Run, 0))
    expect(alone).toMatchObject({ parent_run_id: null, surface: 'api', status: 'completed' })
    expect(callsAt(where)).toEqual(['first', 'second', 'first'])
    expect(await toldOf(parent, 'child_finished')).toHaveLength(2)

    const copy = await forked(parent, await nth(parent, 1))
    expect(callsAt(where).slice(3)).toEqual(['second'])
    expect(copy.output.results[0]).toEqual(parent.output.results[0])
    const { children } = (await get(`/runs/${copy.run_id}/children`)).body
    expect(children).toHaveLength(1)
    expect(children[0].run_id).not.toBe(second?.run_id)
  })

  test('with another input takes it where the recorded calls fit, and says where they do not', async () => {
    const where = place()
    const original = await ended([http(where, 'one'), http(where, 'two')])
    const other = { steps: [http(where, 'one'), http(where, 'three')] }

    const fits = await forked(original, await nth(original, 1), { input: other })
    expect(fits).toMatchObject({ status: 'completed', input: other })
    expect(callsAt(where)).toEqual(['one', 'two', 'three'])

    const differs = await forked(original, await nth(original, 2), { input: other })
    expect(differs).toMatchObject({ status: 'failed', error_code: 'nondeterministic_replay' })
    expect(callsAt(where)).toHaveLength(3)

    const anew = await forked(original, await nth(original, 0), { input: { steps: [] } })
    expect(anew.output).toEqual({ results: [] })

    const bad = await fork(original, await nth(original, 0), { input: { steps: [{ thnk: 1 }] } })
    expectProblem(bad, { status: 422, code: 'validation_error', paths: ['input.steps[0]'] })
  })

  test('is made once under an Idempotency-Key, and audited once', async () => {
    const original = await ended([{ step: 'one' }])
    const checkpoint_id = await nth(original, 1)
    const headers = { 'idempotency-key': 'fork-1' }
    const more = { reason: 'try it again' }

    const both = await Promise.all([
      fork(original, checkpoint_id, more, headers),
      fork(original, checkpoint_id, more, headers),
    ])

    expect(new Set(both.map(({ status }) => status))).toEqual(new Set([200, 202]))
    const [first, second] = both
    expect(second?.body.run_id).toBe(first?.body.run_id)
    const replayed = await fork(original, checkpoint_id, more, headers)
    expect(replayed).toMatchObject({ status: 200, body: { run_id: first?.body.run_id } })
    expect(replayed.headers.get('idempotent-replayed')).toBe('true')
    const other = await fork(original, await nth(original, 0), more, headers)
    expectProblem(other, { status: 409, code: 'idempotency_conflict' })
    const { audit } = (await get('/api/v1/admin/audit?action=run.fork')).body
    const rows = audit.filter((row: Run) => row.run_id === original.run_id)
    expect(rows).toMatchObject([
      {
        actor: 'token:admin',
        target: original.run_id,
        outcome: 'applied',
        reason: 'try it again',
        after: { run_id: first?.body.run_id, checkpoint_id },
      },
    ])
  })

  test('of what is not there is refused, and says what is missing', async () => {
    const original = await ended([])
    const unknown = await fork(original, 'run_none.3')
    expectProblem(unknown, { status: 404, code: 'not_found' })
    expect(unknown.body.detail).toContain('run_none.3')
    // A checkpoint of another run is none of this one.
    const strange = await ended([])
    expectProblem(await fork(original, await nth(strange, 0)), { status: 404, code: 'not_found' })
    const nobody = await fork({ run_id: 'run_none' } as Run, 'run_none.3')
    expectProblem(nobody, { status: 404, code: 'not_found' })
    expectProblem(await post(`/runs/${original.run_id}/fork`, {}), {
      status: 422,
      code: 'validation_error',
      paths: ['checkpoint_id'],
    })
  })
})
