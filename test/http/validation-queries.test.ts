import { expect, test } from 'vitest'
import type { ApiResponse } from '../support/api.ts'
import { expectProblem, scripted, serve } from './setup.ts'

const { service, get, post, createRun, waitForRun, events } = await serve('postgres')
const { run_id, conversation_id } = await createRun(scripted([]))
await waitForRun(run_id)
const eventsBefore = (await events(run_id)).length

const refused = (response: ApiResponse, ...paths: string[]): void =>
  expectProblem(response, { status: 422, code: 'validation_error', paths })

const bad = {
  limit: ['0', '-1', '1001', 'x', '1.5', '', '99999999999999999999'],
  cursor: ['', 'x', '-1', `run_${'x'.repeat(300)}`],
  text: ['%00', 'x'.repeat(256)],
  instant: ['yesterday', '2026-01-01', '', '0000-01-01T00:00:00Z', '9999-12-31T23:59:59-23:00'],
  sequence: ['-1', 'x', '1.5', '3000000000', '99999999999999999999'],
  wait: ['5', 'x', '-1s', '0s', '6m', ''],
}

test.each<[string, string[], string?]>([
  ['/runs?status=', ['', 'done', 'RUNNING'], 'status[0]'],
  ['/runs?status=running,', ['', 'done'], 'status[1]'],
  ['/runs?limit=', bad.limit],
  ['/runs?cursor=', bad.cursor],
  ['/runs?since=', bad.instant],
  ['/runs?agent=', ['', ...bad.text]],
  ['/runs?conversation_id=', ['', ...bad.text]],
  ['/runs?queue=', ['', ...bad.text]],
  ['/runs?lane_key=', ['', ...bad.text]],
  ['/runs?q=', ['', ...bad.text]],
  ['/runs?limit=2&limit=', ['1']],
  ['/runs/:id?wait=', bad.wait],
  ['/runs/:id/events?after_sequence=', bad.sequence],
  ['/runs/:id/events?visibility=', ['', 'all', 'USER']],
  ['/runs/:id/events?limit=', bad.limit],
  ['/runs/:id/checkpoints?limit=', bad.limit],
  ['/runs/:id/checkpoints?cursor=', bad.cursor],
  ['/runs/:id/tool-results?limit=', bad.limit],
  ['/runs/:id/tool-results?cursor=', bad.cursor],
  ['/runs/:id/statechart?at=', bad.sequence],
  ['/runs/:id/agent-events?visibility=', ['', 'all']],
  ['/runs/:id/agent-events?run_id=', ['run_none', '', ...bad.text]],
  ['/conversations/c/agent-events?run_id=', ['', run_id, ...bad.text]],
  ['/agent-events?visibility=', ['none']],
  ['/agent-events?run_id=', ['', ...bad.text]],
  ['/api/v1/admin/audit?action=', ['', ...bad.text]],
  ['/api/v1/admin/audit?actor=', ['', ...bad.text]],
])('GET %s refuses what does not fit and names the parameter', async (path, values, field) => {
  const name = field ?? /(\w+)=$/.exec(path)?.[1] ?? ''
  for (const value of values) {
    refused(await get(path.replace(':id', run_id) + value), name)
  }
})

test('a stream of a run may name that run once more', async () => {
  const { status, body } = await get(`/runs/${run_id}/agent-events?run_id=${run_id}`)
  expect(status).toBe(200)
  expect(body).toContain(`"run_id":"${run_id}"`)
})

test('a stream of a conversation may name one of its runs, and ends with it', async () => {
  const path = `/conversations/${conversation_id}/agent-events?run_id=`
  const { status, body } = await get(path + run_id)
  expect(status).toBe(200)
  expect(body).toContain(`"run_id":"${run_id}"`)
  expectProblem(await get(`${path}run_none`), { status: 404, code: 'not_found' })
})

test.each(['/healthz', '/readyz', '/metrics', '/docs', '/openapi.json'])(
  'GET %s takes whatever monitoring adds to it',
  async (path) => {
    for (const query of ['x=1', `ts=${Date.now()}`, 'a=1&a=2', '%00', '%ff=%ff'])
      expect((await get(`${path}?${query}`)).status, query).toBe(200)
  },
)

test.each([
  ['/runs', 'stauts', 'status'],
  ['/runs/:id', 'wiat', 'wait'],
  ['/runs/:id/events', 'after_sequense', 'after_sequence'],
  ['/runs/:id/checkpoints', 'limt', 'limit'],
  ['/runs/:id/tool-results', 'limt', 'limit'],
  ['/runs/:id/statechart', 'att', 'at'],
  ['/runs/:id/agent-events', 'visibilty', 'visibility'],
  ['/conversations/c/agent-events', 'after_eventid', 'after_event_id'],
  ['/agent-events', 'after_eventid', 'after_event_id'],
])('GET %s refuses the unknown parameter %s with the nearest name', async (path, name, near) => {
  const response = await get(`${path.replace(':id', run_id)}?${name}=1`)

  refused(response, name)
  expect(response.body.errors[0].message).toContain(`did you mean "${near}"?`)
})

test.each<[string, unknown, string]>([
  ['/runs/:id/cancel', { reason: 1 }, 'reason'],
  ['/runs/:id/cancel', { reason: 'x'.repeat(1001) }, 'reason'],
  ['/runs/:id/cancel', { reason: 'a\0' }, 'reason'],
  ['/runs/:id/cancel', { reason: 'a\ud800' }, 'reason'],
  ['/runs/:id/cancel', { resaon: 'x' }, 'resaon'],
  ['/runs/:id/cancel', [], ''],
  ['/runs/:id/cancel?wait=x', {}, 'wait'],
  ['/agent-runs/:id/resume', { reason: [] }, 'reason'],
  ['/agent-runs/:id/resume', { resolutions: [] }, 'resolutions'],
  ['/agent-runs/:id/resume', { resolutions: { a: 'yes' } }, 'resolutions.a'],
  ['/agent-runs/:id/resume', { resolutions: { a: {} } }, 'resolutions.a.outcome'],
  ['/agent-runs/:id/resume', { resolutions: { a: { outcome: 'maybe' } } }, 'resolutions.a.outcome'],
  [
    '/agent-runs/:id/resume',
    { resolutions: { a: { outcome: 'retry', resullt: 1 } } },
    'resolutions.a.resullt',
  ],
  [
    '/agent-runs/:id/resume',
    { resolutions: { a: { outcome: 'succeeded', result: ['\0'] } } },
    'resolutions.a.result[0]',
  ],
  ['/agent-runs/:id/resume', { resolution: {} }, 'resolution'],
  ['/runs/:id/respond', {}, 'answer'],
  ['/runs/:id/respond', { answer: 1, token_id: 1 }, 'token_id'],
  ['/runs/:id/respond', { answer: { outcome: '\ud800' } }, 'answer.outcome'],
  ['/runs/:id/respond', { answr: 1, answer: 1 }, 'answr'],
])('POST %s refuses %j and names the field', async (path, body, field) => {
  refused(await post(path.replace(':id', run_id), body), field)
})

test('commands answer 400 to malformed JSON', async () => {
  for (const path of ['cancel', 'respond']) {
    const response = await post(`/runs/${run_id}/${path}`, '{')
    expectProblem(response, { status: 400, code: 'bad_request' })
  }
  const resume = await post(`/agent-runs/${run_id}/resume`, '[')
  expectProblem(resume, { status: 400, code: 'bad_request' })
})

test.each([
  ...['nope', '%00', '%ff', '%ed%a0%80', '..%2f..', '%F0%9F%98%80'].map(
    (id) => [id, 404, 'not_found'] as const,
  ),
  ['x'.repeat(256), 422, 'validation_error'] as const,
])('a run that is not there, %s, is %i on every route', async (id, status, code) => {
  const reads = ['', '/events', '/checkpoints', '/tool-results', '/statechart', '/agent-events']
  for (const path of reads) {
    expectProblem(await get(`/runs/${id}${path}`), { status, code })
  }
  const commands = [`/runs/${id}/cancel`, `/agent-runs/${id}/resume`]
  for (const path of commands) {
    expectProblem(await post(path, {}), { status, code })
  }
  const respond = await post(`/runs/${id}/respond`, { answer: 1 })
  expectProblem(respond, { status, code })
})

test('other paths and machines that are not there are 404, whatever they are called', async () => {
  for (const path of ['/nope', '/runs/a/b/c', '/machines/nope', '/machines/run.png', '/%00']) {
    expectProblem(await get(path), { status: 404, code: 'not_found' })
  }
  for (const path of ['/machines/..%2f..%2fpackage.json', '/machines/%2e%2e.svg']) {
    expectProblem(await get(path), { status: 404, code: 'not_found' })
  }
  expectProblem(await post('/runs/x/y', {}), { status: 404, code: 'not_found' })
})

test('nothing of all this touched the run, and nothing failed inside', async () => {
  expect((await get('/runs')).body.runs.map((run: { run_id: string }) => run.run_id)).toEqual([
    run_id,
  ])
  expect((await events(run_id)).length).toBe(eventsBefore)
  expect(service.stderr()).not.toMatch(/"level":"error"/)
})
