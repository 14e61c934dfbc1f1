/** A cancel in each state that a run can be in; `cancel-boundaries.test.ts` has the moments between them. */
import { afterAll, describe, expect, test } from 'vitest'
import type { Json, Run, RunEvent } from '../support/api.ts'
import { expectCancelledOnce, expectStartedAfter, toolResultsOf } from '../support/cancelled.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { DATABASES, scripted, serveOnBoth } from './setup.ts'

const effects = await startEffectServer()
afterAll(() => effects.close())
const served = await serveOnBoth()

const LONG = { think: 600_000 }
const calls = (path: string, kind: string) => ({
  http: `${effects.url}/${path}`,
  body: { hang: true },
  effects: kind,
})
const child = (...steps: Json[]) => ({ agent: 'scripted', input: { steps } })

interface Case {
  steps: Json[]
  status: string
  more?: Record<string, unknown>
  /** Of a call that is let finish: how it is recorded. */
  recorded?: Json
  /** Nobody holds its lane while it waits for its time. */
  free?: boolean
}

const CASES: Record<string, Case> = {
  'before its time': {
    steps: [],
    status: 'queued',
    more: { run_at: '2999-01-01T00:00:00Z' },
    free: true,
  },
  thinking: { steps: [LONG], status: 'running' },
  saying: { steps: [{ say: 'never said', chunks: 2, ms: 600_000 }], status: 'running' },
  'in a step': { steps: [{ step: 'long', ms: 600_000 }], status: 'running' },
  'in a call that changes nothing': {
    steps: [calls('none', 'none')],
    status: 'waiting_on_tool',
    recorded: { outcome: 'failed', error_message: 'aborted by a cancel' },
  },
  'in a call that may be repeated': {
    steps: [calls('idempotent', 'idempotent')],
    status: 'waiting_on_tool',
    recorded: { outcome: 'succeeded' },
  },
  'in a call that must not be repeated': {
    steps: [calls('unsafe', 'unsafe')],
    status: 'waiting_on_tool',
    recorded: { outcome: 'succeeded' },
  },
  'waiting for a child': { steps: [{ delegate: child(LONG) }], status: 'waiting_on_child' },
  'waiting for a child that waits for its own': {
    steps: [{ delegate: child({ delegate: child(LONG) }) }],
    status: 'waiting_on_child',
  },
}

describe.each(DATABASES)('on %s', (database) => {
  const client = served[database]
  const { createRun, waitForRun, cancel, run, events, get } = client

  const reaches = (one: Run, status: string): Promise<Run> =>
    waitForRun(one.run_id, { until: (now) => now.status === status })

  test.each(Object.entries(CASES))(
    'cancelled %s, a run ends once, its lane goes on, and nothing goes out any more',
    async (name, { steps, status, more = {}, recorded, free }) => {
      const lane_key = `${database} ${name}`
      const conversation_id = lane_key
      const goneOut = effects.calls.length
      const cancelled = await createRun(
        scripted([...steps, { http: `${effects.url}/later` }], {
          conversation_id,
          lane_key,
          ...more,
        }),
      )
      const next = await createRun(scripted([{ return: 'next' }], { conversation_id, lane_key }))
      const sibling = await createRun(scripted([LONG], { conversation_id, lane_key: `${name} 2` }))
      await reaches(cancelled, status)
      if (recorded) await eventually(() => effects.calls.length > goneOut)
      if (!free) expect((await run(next.run_id)).status).toBe('waiting_on_lane')

      expect((await cancel(cancelled.run_id, { reason: 'enough' })).status).toBe(202)
      if (recorded?.outcome === 'succeeded') {
        await reaches(cancelled, 'cancel_requested')
        effects.release()
      }

      const end = (await expectCancelledOnce(client, cancelled.run_id)).at(-1) as RunEvent
      if (free) expect((await waitForRun(next.run_id)).status).toBe('completed')
      else await expectStartedAfter(client, next, end)
      for (const one of (await get(`/runs/${cancelled.run_id}/children`)).body.children as Run[]) {
        const [ended] = (await expectCancelledOnce(client, one.run_id)).slice(-1)
        expect(ended?.id).toBeLessThan(end.id)
      }
      if (recorded) {
        const results = await toolResultsOf(client, cancelled.run_id)
        expect(results).toMatchObject([recorded])
      }
      expect(effects.calls.slice(goneOut).map(({ path }) => path)).not.toContain('/later')
      expect(await run(sibling.run_id)).toMatchObject({
        status: 'running',
        cancel_requested: false,
      })
      await cancel(sibling.run_id)
    },
  )

  test('of two children the cancelled one alone ends, and their parent goes on with the other', async () => {
    const two = [child(LONG), child({ think: 500 }, { return: 'sibling' })]
    const parent = await createRun(scripted([{ delegate_all: two }]))
    const [first, second] = await eventually(async () => {
      const found = (await get(`/runs/${parent.run_id}/children`)).body.children.toReversed()
      return found.length === 2 && (found as Run[])
    })
    if (!first || !second) throw new Error('no children')

    await cancel(first.run_id, { reason: 'not this one' })

    await expectCancelledOnce(client, first.run_id)
    expect(await waitForRun(second.run_id)).toMatchObject({
      status: 'completed',
      cancel_requested: false,
    })
    expect(await waitForRun(parent.run_id)).toMatchObject({
      status: 'completed',
      cancel_requested: false,
      output: { results: [[{ status: 'delegation_cancelled' }, { status: 'completed' }]] },
    })
  })

  test('a second cancel in the midst of a call is noted, and changes nothing', async () => {
    const cancelled = await createRun(scripted([calls('twice', 'unsafe'), LONG]))
    await eventually(() => effects.calls.some(({ path }) => path === '/twice'))
    await cancel(cancelled.run_id, { reason: 'enough' })
    await reaches(cancelled, 'cancel_requested')
    const again = await cancel(cancelled.run_id, { reason: 'I mean it' })
    expect(again.body.command).toMatchObject({ status: 'applied', outcome: 'cancel_requested' })
    expect((await run(cancelled.run_id)).status).toBe('cancel_requested')
    effects.release()

    const asked = (await expectCancelledOnce(client, cancelled.run_id)).filter(
      ({ event_type }) => event_type === 'cancel_requested',
    )
    expect(asked.map(({ payload }) => payload.reason)).toEqual(['enough', 'I mean it'])
    expect(
      (await events(cancelled.run_id)).filter(({ payload }) => payload.from === 'cancel_requested'),
    ).toHaveLength(1)
  })

  test('nothing failed inside', () => {
    expect(client.service.stderr()).not.toMatch(/"level":"error"/)
  })
})
