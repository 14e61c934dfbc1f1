import { describe, expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import {
  child,
  childOf,
  childrenOf,
  client,
  interrupt,
  post,
  reaches,
  toldOf,
  type Steps,
} from './children-setup.ts'
import { expectProblem } from './setup.ts'

/** Steps of a child, the status that it is to be in, and what else keeps it there. */
const STATES: Record<string, { steps: Steps; status: string; blocker?: Steps }> = {
  running: { steps: [{ think: 60_000 }], status: 'running' },
  'a tool call': {
    steps: [{ tool: 'slow', ms: 60_000, effects: 'none' }],
    status: 'waiting_on_tool',
  },
  'waiting for a child of its own': {
    steps: [{ delegate: child([{ think: 60_000 }]) }],
    status: 'waiting_on_child',
  },
  'the line of its lane': {
    steps: [{ return: 1 }],
    status: 'waiting_on_lane',
    blocker: [{ think: 60_000 }],
  },
}

describe.each(Object.entries(STATES))(
  'an interrupt of a child in %s',
  (name, { steps, status, blocker }) => {
    test.each([
      ['continue', 'completed'],
      ['fail', 'failed'],
    ])(
      'is told to its parent once, which goes on as its code decides: %s',
      async (decision, end) => {
        const conversation_id = `interrupt ${name} ${decision}`
        const namespace = 'one'
        const ahead = blocker
          ? await post([{ delegate: child(blocker, { namespace, detach: true }) }], {
              conversation_id,
            })
          : undefined
        if (ahead) await client.waitForRun(ahead.run_id)
        const run = await post(
          [
            { delegate: child(steps, { namespace, on_cancelled: decision }) },
            { return: 'went on' },
          ],
          { conversation_id },
        )
        const interrupted = await childOf(run)
        await reaches(interrupted, status)

        const answer = await interrupt(interrupted, { reason: 'wrong way' })

        expect(answer).toMatchObject({ status: 202, body: { command: { kind: 'interrupt' } } })
        const ended = await client.waitForRun(run.run_id)
        expect(ended).toMatchObject(
          end === 'completed'
            ? { status: end, output: 'went on' }
            : { status: end, error_code: 'delegation_cancelled' },
        )
        expect(await client.waitForRun(interrupted.run_id)).toMatchObject({ status: 'cancelled' })
        const told = await toldOf(run, 'delegation_cancelled', 'child_finished')
        expect(told.map(({ payload }) => payload)).toEqual([
          { child_run_id: interrupted.run_id, by: 'token:admin', reason: 'wrong way' },
        ])
        if (ahead) await client.cancel((await childOf(ahead)).run_id)
      },
    )
  },
)

describe('an interrupt', () => {
  test('may be answered with another try', async () => {
    const once = child([{ think: 300 }, { return: 'at last' }], { on_cancelled: 'retry' })
    const run = await post([{ delegate: once }])
    await interrupt(await childOf(run))
    expect((await client.waitForRun(run.run_id)).output).toMatchObject({
      results: [{ status: 'completed', output: 'at last' }],
    })
    expect(await childrenOf(run)).toMatchObject([{ status: 'cancelled' }, { status: 'completed' }])
  })

  test('touches no sibling, and is refused for what is no child, over, or unknown', async () => {
    const two = [child([{ think: 60_000 }]), child([{ think: 300 }, { return: 'sibling' }])]
    const run = await post([{ delegate_all: two }])
    const [first] = await eventually(async () => {
      const found = await childrenOf(run)
      return found.length === 2 && found
    })
    await interrupt(first as Run)
    const { output } = await client.waitForRun(run.run_id)
    expect(output).toMatchObject({
      results: [[{ status: 'delegation_cancelled' }, { status: 'completed', output: 'sibling' }]],
    })
    expectProblem(await interrupt(first as Run), { status: 409, code: 'not_cancellable' })
    expectProblem(await interrupt(run), { status: 409, code: 'not_a_subagent' })
    expectProblem(await interrupt({ run_id: 'run_none' } as Run), {
      status: 404,
      code: 'not_found',
    })
    // A refusal is written with the next commit, so they may come in another order.
    const audited = await eventually(async () => {
      const { body } = await client.get(
        '/api/v1/admin/audit?action=agent_runtime.interrupt_subagent',
      )
      const refused = body.audit.filter((row: { outcome: string }) => row.outcome === 'refused')
      return refused.length >= 3 && refused
    })
    expect(audited).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ code: 'not_found' }),
        expect.objectContaining({ code: 'not_a_subagent', run_id: run.run_id }),
        expect.objectContaining({ code: 'not_cancellable', run_id: first?.run_id }),
      ]),
    )
  })
})

describe('the diagnosis of a run that waits for a child', () => {
  test('names the child, and what that waits for', async () => {
    const run = await post([{ delegate: child([{ tool: 'slow', ms: 60_000, effects: 'none' }]) }])
    const waiting = await childOf(run)
    await reaches(waiting, 'waiting_on_tool')
    const { body } = await client.get(`/runs/${run.run_id}/diagnosis`)
    expect(body.causes).toMatchObject([
      { gate: 'child.waiting', run_id: run.run_id, holder: waiting.run_id, current: 1 },
      { gate: 'tool.in_flight', run_id: waiting.run_id },
    ])
    expect(body.summary).toMatch(/waiting for .*slow/i)
    await client.cancel(run.run_id)
  })

  test('finds runs that wait for each other in a circle', async () => {
    const conversation_id = 'circle'
    const into = (namespace: string, steps: Steps) => child(steps, { namespace })
    const cross = (mine: string, other: string) =>
      post([{ delegate: into(mine, [{ think: 400 }, { delegate: into(other, []) }]) }], {
        conversation_id,
        lane_key: `own ${mine}`,
      })
    const runs = [await cross('a', 'b'), await cross('b', 'a')]
    const circle = await eventually(async () => {
      const { body } = await client.get(`/runs/${runs[0]?.run_id}/diagnosis`)
      return body.causes.find(({ gate }: { gate: string }) => gate === 'cycle') ?? false
    })
    // The one that it names has lost least: it stands in line. Without it all others come to their end.
    const [, named = ''] = /^cancel (run_\w+)$/.exec(circle.action) ?? []
    expect(await client.run(named)).toMatchObject({ status: 'waiting_on_lane', started_at: null })
    await client.cancel(named)
    for (const run of runs)
      expect(await client.waitForRun(run.run_id)).toMatchObject({ status: 'completed' })
  })
})

describe('a cancel of the parent', () => {
  test('ends the whole tree, from its leaves to its root', async () => {
    const leaf = child([{ tool: 'slow', ms: 300 }])
    const run = await post([
      { delegate_all: [child([{ delegate: leaf }]), child([{ think: 60_000 }])] },
    ])
    const tree = await eventually(async () => {
      const { body } = await client.get(`/runs?conversation_id=${run.conversation_id}`)
      const runs = body.runs as Run[]
      const settled = runs.filter(({ status }) =>
        /^(running|waiting_on_(tool|child))$/.test(status),
      )
      return settled.length === 4 && runs
    })

    await client.cancel(run.run_id, { reason: 'enough' })

    expect(await client.waitForRun(run.run_id)).toMatchObject({ status: 'cancelled' })
    const ends = new Map<string, number>()
    for (const { run_id } of tree) {
      const end = (await client.events(run_id)).find(({ payload }) => payload.to === 'cancelled')
      ends.set(run_id, Number(end?.id))
    }
    for (const { run_id, parent_run_id } of tree)
      if (parent_run_id !== null)
        expect(ends.get(run_id)).toBeLessThan(ends.get(parent_run_id as string) as number)
  })

  test('leaves a detached child alone', async () => {
    const free = child([{ think: 400 }, { return: 'free' }], { detach: true })
    const run = await post([{ delegate: free }, { think: 60_000 }])
    const detached = await childOf(run)
    await client.cancel(run.run_id)
    await client.waitForRun(run.run_id)
    expect(await client.waitForRun(detached.run_id)).toMatchObject({ status: 'completed' })
  })

  test('is what a recycle does by force: a tree that does not listen ends from its leaves up', async () => {
    const deaf = child([{ tool: 'deaf', ms: 60_000 }])
    const run = await post([{ delegate: child([{ delegate: deaf }]) }])
    const tree = await eventually(async () => {
      const { body } = await client.get(`/runs?conversation_id=${run.conversation_id}`)
      const runs = body.runs as Run[]
      return runs.length === 3 && runs.some((one) => one.status === 'waiting_on_tool') && runs
    })

    await client.post(`/api/v1/admin/agent-runtime/runs/${run.run_id}/recycle`, { force: true })

    expect(await client.waitForRun(run.run_id)).toMatchObject({
      status: 'failed',
      error_code: 'recycled',
    })
    const ends = await Promise.all(
      tree.map(async ({ run_id }) => {
        const end = (await client.events(run_id)).findLast(
          ({ event_type }) => event_type === 'run_status_changed',
        )
        return [Number(end?.id), end?.payload.to]
      }),
    )
    // Newest first, as lists are: the leaf, its parent, the root.
    expect(ends.map(([, to]) => to)).toEqual(['cancelled', 'cancelled', 'failed'])
    expect(ends.map(([id]) => id)).toEqual(
      ends.map(([id]) => id).toSorted((a, b) => Number(a) - Number(b)),
    )
  })
})
