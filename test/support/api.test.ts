import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { api, type Run } from './api.ts'

type Answer = { status?: number; type?: string; body: unknown }

/** The client against a service that answers as `answer` says; `asked` are the requests so far. */
const client = async (answer: (asked: readonly string[]) => Answer | 'cut') => {
  const asked: string[] = []
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    asked.push(`${request.method} ${request.url}`)
    const given = answer(asked)
    if (given === 'cut') {
      response.destroy()
      return
    }
    const { status = 200, type = 'application/json', body } = given
    response.writeHead(status, { 'content-type': type })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  return { asked, ...api({ url: `http://127.0.0.1:${port}`, token: 't' }) }
}

test('a run is made only by a 202', async () => {
  const { createRun } = await client(([, second]) =>
    second === undefined
      ? { status: 202, body: { run_id: 'run_1' } }
      : { status: 422, type: 'application/problem+json', body: { code: 'unknown_agent' } },
  )
  expect(await createRun({ agent: 'scripted' })).toEqual({ run_id: 'run_1' })
  await expect(createRun({})).rejects.toThrow(/POST \/runs answered 422.*unknown_agent/)
})

test('a body that is no JSON is text, and none is null', async () => {
  const { get } = await client(([, second]) => ({
    type: 'text/html',
    body: second === undefined ? '<p>1</p>' : '',
  }))
  expect((await get('/')).body).toBe('<p>1</p>')
  expect((await get('/')).body).toBeNull()
})

test('a run is awaited while the service breaks, restarts and works on', async () => {
  const answers: (Answer | 'cut')[] = [
    'cut',
    { status: 503, body: {} },
    { body: { status: 'running' } },
    { body: { status: 'completed' } },
  ]
  const { asked, waitForRun } = await client(({ length }) => answers[length - 1] ?? 'cut')
  expect(await waitForRun('run_1')).toEqual({ status: 'completed' })
  expect(asked).toEqual(Array.from({ length: 4 }, () => 'GET /runs/run_1?wait=5s'))
})

test('a run that does not get there is shown as it was last; an unknown one fails at once', async () => {
  const { waitForRun } = await client(() => ({ body: { status: 'queued' } }))
  const until = (run: Run) => run.status === 'running'
  await expect(waitForRun('run_1', { until, timeoutMs: 50 })).rejects.toThrow(/run_1.*"queued"/)

  const unknown = await client(() => ({ status: 404, body: { code: 'not_found' } }))
  await expect(unknown.waitForRun('run_1')).rejects.toThrow(/404.*not_found/)
  expect(unknown.asked).toHaveLength(1)
})

test('events are read page by page', async () => {
  const page = (...sequences: number[]) => sequences.map((sequence) => ({ sequence }))
  const pages = [page(1, 2), page(3, 4), page(5)]
  const { asked, events } = await client(({ length }) => ({
    body: { events: pages[length - 1], next_cursor: length === 3 ? null : 'more' },
  }))
  expect((await events('run_1', { limit: 2 })).map(({ sequence }) => sequence)).toEqual([
    1, 2, 3, 4, 5,
  ])
  expect(asked).toEqual(
    [0, 2, 4].map(
      (after) => `GET /runs/run_1/events?after_sequence=${after}&visibility=internal&limit=2`,
    ),
  )
})
