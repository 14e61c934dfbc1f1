import { describe, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { child, childOf, childrenOf, client, post, toldOf, type Steps } from './children-setup.ts'
import { expectProblem, scripted } from './setup.ts'

describe('a delegation', () => {
  test('makes a child run of the same conversation, and its report is the result', async () => {
    const run = await post([{ delegate: child([{ return: 42 }], { namespace: 'draft' }) }], {
      conversation_id: 'family',
    })

    const ended = await client.waitForRun(run.run_id)

    const [only] = await childrenOf(run)
    expect(only).toMatchObject({
      parent_run_id: run.run_id,
      root_run_id: run.run_id,
      conversation_id: 'family',
      surface: 'child',
      lane_key: 'child:family:scripted:draft',
      created_by: run.created_by,
      status: 'completed',
    })
    const report = {
      child_run_id: only?.run_id,
      status: 'completed',
      output: 42,
      error_message: null,
    }
    expect(ended).toMatchObject({ status: 'completed', children: 1 })
    expect(ended.output).toEqual({ results: [report] })
    const told = await toldOf(run, 'child_started', 'child_finished')
    expect(told.map(({ payload }) => payload)).toMatchObject([
      { child_run_id: only?.run_id, agent: 'scripted', namespace: 'draft' },
      { child_run_id: only?.run_id, status: 'completed' },
    ])
  })

  test('of a failing child resolves with its failure, and is not resumed by itself', async () => {
    const run = await post([{ delegate: child([{ fail: 'no luck' }]) }])
    const ended = await client.waitForRun(run.run_id)
    expect(ended.output).toMatchObject({
      results: [{ status: 'failed', output: null, error_message: 'no luck' }],
    })
    const failed = await childOf(run)
    expectProblem(await client.resume(failed.run_id), { status: 409, code: 'not_resumable' })
  })

  test('to an agent that nobody knows comes back as failed', async () => {
    const run = await post([{ delegate: { agent: 'nobody' } }])
    expect((await client.waitForRun(run.run_id)).output).toMatchObject({
      results: [{ status: 'failed', error_code: 'unknown_agent' }],
    })
  })

  test('with detach answers at once, and the child goes on when its parent is over', async () => {
    const run = await post([{ delegate: child([{ think: 200 }, { return: 1 }], { detach: true }) }])
    const ended = await client.waitForRun(run.run_id)
    expect(ended.output).toMatchObject({ results: [{ status: 'detached', output: null }] })
    const detached = await childOf(run)
    expect(await client.waitForRun(detached.run_id)).toMatchObject({ status: 'completed' })
    expect(await toldOf(run, 'child_finished')).toEqual([])
  })

  test('of many children waits for all of them', async () => {
    const many = Array.from({ length: 30 }, (_, nth) => child([{ think: nth }, { return: nth }]))
    const run = await post([{ delegate_all: many }])
    const ended = await client.waitForRun(run.run_id)
    const output = ended.output as { results: [{ output: number }[]] }
    expect(output.results[0].map((report) => report.output)).toEqual(many.map((_, nth) => nth))
    expect(ended.children).toBe(30)
    expect(await toldOf(run, 'child_finished')).toHaveLength(30)
  })

  test('within a namespace stands in line behind the one before', async () => {
    const slow = child([{ think: 100 }, { return: 'first' }], { namespace: 'one' })
    const fast = child([{ return: 'second' }], { namespace: 'one' })
    const run = await post([{ delegate_all: [slow, fast] }])
    await client.waitForRun(run.run_id)
    const [first, second] = await childrenOf(run)
    expect(second?.lane_key).toBe(first?.lane_key)
    expect(Date.parse(String(second?.started_at))).toBeGreaterThanOrEqual(
      Date.parse(String(first?.ended_at)),
    )
  })

  test('into a lane that an ancestor holds is refused', async () => {
    const inner = child([{ delegate: child([], { namespace: 'loop' }) }], { namespace: 'loop' })
    const run = await post([{ delegate: inner }])
    expect((await client.waitForRun(run.run_id)).output).toMatchObject({
      results: [{ status: 'failed', error_code: 'lane_cycle' }],
    })
  })

  test('deeper than twelve runs is refused', async () => {
    let steps: Steps = [{ return: 'the bottom' }]
    for (let depth = 0; depth < 13; depth += 1) steps = [{ delegate: child(steps) }]
    const run = await post(steps)
    const ended = await client.waitForRun(run.run_id)
    expect(JSON.stringify(ended.output)).not.toContain('the bottom')
    const children = await client.get(`/runs?conversation_id=${run.conversation_id}&limit=100`)
    const codes = children.body.runs.map((one: Run) => one.error_code)
    expect(codes).toContain('delegation_too_deep')
    expect(codes).toHaveLength(12)
  })

  test('takes the scripts of its children apart when it is posted', async () => {
    const steps = [{ delegate: child([{ delegate_all: [child([{ thinc: 1 }])] }]) }]
    const refused = await client.post('/runs', scripted(steps))
    expectProblem(refused, { status: 422, code: 'validation_error' })
    expect(refused.body.errors[0].path).toBe(
      'input.steps[0].delegate.input.steps[0].delegate_all[0].input.steps[0]',
    )
  })

  test('leaves the place of its run to its children', async () => {
    const narrow = await startService({
      databaseUrl: await freshDatabase(),
      env: { RUNLANE_CONCURRENCY: '1' },
    })
    try {
      const alone = api(narrow)
      const nested = child([{ delegate: child([{ return: 'deep' }]) }])
      const run = await alone.createRun(scripted([{ delegate: nested }]))
      expect(await alone.waitForRun(run.run_id)).toMatchObject({ status: 'completed' })
    } finally {
      await narrow.kill()
    }
  })
})
