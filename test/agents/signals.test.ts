/** `ctx.signalNamed`: what a run reads, in which order, and that it reads each signal once, whatever dies meanwhile. */
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { type Api, api, type Run, type RunEvent } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'

const effects = await startEffectServer()
const databaseUrl = await freshDatabase()
const env = {
  RUNLANE_AGENTS: fileURLToPath(new URL('fixtures/signals', import.meta.url)),
  RUNLANE_LEASE: '1s',
  EFFECTS_URL: effects.url,
}
let service = await startService({ env, databaseUrl })
afterAll(async () => {
  await service.kill()
  await effects.close()
})
const served: Api = api(service)
const { createRun, waitForRun, events, get, post, respond, cancel } = served
/** `kill -9`, then a new start. */
const crash = async () => {
  await service.kill()
  service = await service.restart()
}

let paths = 0
/** Of a call that this test alone makes. */
const freshPath = () => `call-${(paths += 1)}`
const arrived = (path: string, times = 1) =>
  eventually(() => effects.calls.filter((call) => call.path === `/${path}`).length === times)

const listen = (parts: object[], more: object = {}): Promise<Run> =>
  createRun({ agent: 'listener', input: { parts }, ...more })
const parked = (run: Run): Promise<Run> =>
  waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_human' })
const send = async (run: Run, name: string, data?: unknown) => {
  const { status, body } = await post(`/runs/${run.run_id}/signal`, { name, data })
  expect({ status, ...body.command }).toMatchObject({ status: 'applied', outcome: 'kept' })
  return body.command.command_id as string
}
const readOf = (all: RunEvent[]): string[] =>
  all.flatMap(({ event_type, payload }) =>
    event_type === 'command_applied' && payload.kind === 'signal' ? payload.command_id : [],
  )
const outputOf = async (run: Run): Promise<unknown> => {
  const end = await waitForRun(run.run_id)
  expect(end).toMatchObject({ status: 'completed', error_message: null })
  return end['output']
}

test('signals that come before they are asked for are kept, and read in their order', async () => {
  const path = freshPath()
  const run = await listen([
    { tool: 'call', input: { path, hang: true } },
    { read: 'x' },
    { read: 'y' },
    { read: 'x' },
  ])
  await arrived(path)
  const sent = [await send(run, 'x', 1), await send(run, 'x', { n: [2] }), await send(run, 'y')]

  effects.release()

  expect(await outputOf(run)).toEqual([path, 1, null, { n: [2] }])
  expect((await waitForRun(run.run_id)).attempt).toBe(1)
  expect(readOf(await events(run.run_id))).toEqual([sent[0], sent[2], sent[1]])
})

test('a run that waits for a signal alone is parked, says so, and goes on when it comes', async () => {
  const run = await listen([{ read: 'other' }, { read: 'approve' }])
  const next = await listen([], { lane_key: run.lane_key })
  await send(run, 'other', 'before')

  const found = await parked(run)

  expect(found).toMatchObject({ detail: 'signal', node_id: null, attempt: 1 })
  // Its lane is left to others.
  expect(await outputOf(next)).toEqual([])
  const { body } = await get(`/runs/${run.run_id}/diagnosis`)
  expect(body.summary).toContain('waiting for the signal "approve"')
  expect(body.causes).toMatchObject([
    {
      gate: 'signal.waiting',
      action: 'send it: POST /runs/{run_id}/signal {"name": "approve"}',
    },
  ])
  // Another than that it waits for is kept, and wakes nobody.
  await send(run, 'reject', 1)
  expect((await served.run(run.run_id)).status).toBe('waiting_on_human')

  await send(run, 'approve', { by: 'ana' })

  expect(await outputOf(run)).toEqual(['before', { by: 'ana' }])
  const all = await events(run.run_id)
  const types = all.map(({ event_type }) => event_type)
  expect(types.filter((type) => type === 'human_asked')).toHaveLength(1)
  expect(types.filter((type) => type === 'human_answered')).toHaveLength(1)
  expect((await waitForRun(run.run_id)).attempt).toBe(2)
})

test('calls for one name at once get a signal each, in their order', async () => {
  const run = await listen([{ all: ['x', 'x', 'y', 'x'] }])
  await parked(run)

  await Promise.all([send(run, 'y', 'y'), send(run, 'x', 'first')])
  await send(run, 'x', 'second')
  await send(run, 'x', 'third')

  expect(await outputOf(run)).toEqual([['first', 'second', 'y', 'third']])
  expect(readOf(await events(run.run_id))).toHaveLength(4)
})

test('of a race of signals the first one decides, and the other call waits on without holding the run', async () => {
  const run = await listen([{ race: ['approve', 'reject'] }, { read: 'z' }, { read: 'reject' }])
  await parked(run)
  await send(run, 'reject', 'no')
  await waitForRun(run.run_id, {
    until: ({ status, attempt }) => status === 'waiting_on_human' && attempt === 2,
  })

  await send(run, 'z', 'z')
  await send(run, 'reject', 'no again')

  expect(await outputOf(run)).toEqual(['no', 'z', 'no again'])
})

test('with a call in flight the run stays, and reads its signal beside it', async () => {
  const path = freshPath()
  const run = await listen([{ tool: 'call', input: { path, hang: true }, beside: 'x' }])
  await arrived(path)
  const id = await send(run, 'x', 'beside')

  await eventually(async () => readOf(await events(run.run_id)).includes(id))

  expect(await served.run(run.run_id)).toMatchObject({ status: 'waiting_on_tool', attempt: 1 })
  effects.release()
  expect(await outputOf(run)).toEqual([[path, 'beside']])
})

test('when the call beside it has ended first, the run is parked for the signal', async () => {
  const run = await listen([{ tool: 'call', input: { path: freshPath() }, beside: 'x' }])
  expect((await parked(run)).detail).toBe('signal')
  await send(run, 'x', 'late')
  expect(await outputOf(run)).toEqual([[expect.any(String), 'late']])
})

test('killed after it has read a signal, a run is given that from its record and the next one from the inbox', async () => {
  const path = freshPath()
  const run = await listen([
    { read: 'x' },
    { tool: 'call', input: { path, hang: true } },
    { read: 'x' },
  ])
  await send(run, 'x', 'first')
  await send(run, 'x', 'second')
  await arrived(path)

  await crash()
  await arrived(path, 2)
  effects.release()

  expect(await outputOf(run)).toEqual(['first', path, 'second'])
  expect(new Set(readOf(await events(run.run_id))).size).toBe(2)
  expect(readOf(await events(run.run_id))).toHaveLength(2)
})

test('killed while it is parked, and right after the signal came, a run goes on with it', async () => {
  const runs = [await listen([{ read: 'x' }]), await listen([{ read: 'x' }])]
  for (const run of runs) await parked(run)
  const [woken, asleep] = runs as [Run, Run]

  await send(woken, 'x', 'woken')
  await crash()
  expect(await outputOf(woken)).toEqual(['woken'])

  expect((await served.run(asleep.run_id)).status).toBe('waiting_on_human')
  await send(asleep, 'x', 'asleep')
  expect(await outputOf(asleep)).toEqual(['asleep'])
})

test('when its thread dies under a run that waits, the signal is there for the next attempt', async () => {
  const run = await listen([{ tool: 'burst', beside: 'x' }, { read: 'x' }])
  await waitForRun(run.run_id, { until: ({ attempt }) => attempt === 2 })
  await send(run, 'x', 'one')
  await send(run, 'x', 'two')
  expect(await outputOf(run)).toEqual([['whole', 'one'], 'two'])
})

test('cancelled while it is parked, a run ends at once and takes no signal any more', async () => {
  const run = await listen([{ read: 'x' }])
  await parked(run)
  await send(run, 'y', 'unread')

  expect((await cancel(run.run_id)).body.run.status).toBe('cancelled')

  const refused = await post(`/runs/${run.run_id}/signal`, { name: 'x' })
  expect(refused).toMatchObject({ status: 409, body: { code: 'not_active' } })
  expect(readOf(await events(run.run_id))).toEqual([])
})

test('a signal that comes while the run asks about a call of unknown outcome is kept', async () => {
  const path = freshPath()
  const run = await listen([{ tool: 'charge', input: { path, hang: true } }, { read: 'x' }])
  await arrived(path)
  await crash()
  expect((await parked(run)).detail).toBe('unknown_tool_call')

  await send(run, 'x', 'kept')
  expect((await served.run(run.run_id)).detail).toBe('unknown_tool_call')
  await respond(run.run_id, { outcome: 'succeeded', result: 'paid' })

  expect(await outputOf(run)).toEqual(['paid', 'kept'])
})

test('what a run has not read when it fails is there when it is resumed, and for no fork of it', async () => {
  const path = freshPath()
  const call = { tool: 'call', input: { path, hang: true } }
  const run = await listen([call, { flaky: true }, { read: 'x' }])
  await arrived(path)
  await send(run, 'x', 'kept')
  effects.release()
  expect((await waitForRun(run.run_id)).status).toBe('failed')
  expect(await post(`/runs/${run.run_id}/signal`, { name: 'x' })).toMatchObject({
    status: 409,
    body: { code: 'not_active' },
  })

  const [first] = (await get(`/runs/${run.run_id}/checkpoints`)).body.checkpoints
  const { checkpoint_id } = first
  const fork = (await post(`/runs/${run.run_id}/fork`, { checkpoint_id })).body
  await served.resume(run.run_id)

  expect(await outputOf(run)).toEqual([path, 'mended', 'kept'])
  await arrived(path, 2)
  effects.release()
  // Its first attempt fails as well.
  expect((await waitForRun(fork.run_id)).status).toBe('failed')
  await served.resume(fork.run_id)
  expect((await parked(fork)).detail).toBe('signal')
})
