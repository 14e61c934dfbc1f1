import { describe, expect, onTestFinished, test } from 'vitest'
import { scripted, serve } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { restartable } from '../client/setup.ts'
import { accessTo, cli, freshFolder } from './setup.ts'

const served = await serve('postgres', {
  env: { RUNLANE_WATCHDOG_TOOL: '300ms', RUNLANE_WATCHDOG_INTERVAL: '50ms' },
})
const { service, createRun, waitForRun, cancel, get, post } = served
const env = accessTo(service)
const run = (...args: string[]) => cli(['run', ...args], { env })
const started = async (steps: readonly unknown[], more = {}): Promise<string> => {
  const { run_id } = await createRun(scripted(steps, more))
  onTestFinished(() => void cancel(run_id))
  return run_id
}
const running = async (more = {}): Promise<string> => {
  const runId = await started([{ think: 60_000 }], more)
  await waitForRun(runId, { until: ({ status }) => status === 'running' })
  return runId
}
const stuck = async (): Promise<string> => {
  const runId = await started([{ tool: 'lost', hang: true }])
  await waitForRun(runId, { until: ({ stuck_reason }) => stuck_reason !== null })
  return runId
}

test('fork goes on from a checkpoint, with another input if it is told so', async () => {
  const runId = await started([{ step: 'one', result: 1 }])
  await waitForRun(runId)
  const { checkpoints } = (await get(`/runs/${runId}/checkpoints`)).body
  const { checkpoint_id } = checkpoints[1]
  const fork = (...more: string[]) => run('fork', runId, '--checkpoint', checkpoint_id, ...more)

  const forked = await fork('--wait', '--json')
  expect(forked).toMatchObject({
    ...{ code: 0, stderr: '' },
    json: [{ status: 'completed', output: { results: [1] }, forked_from: { checkpoint_id } }],
  })
  const input = JSON.stringify({ steps: [{ step: 'one' }, { return: 'changed' }] })
  expect(await fork('--input', input, '--wait')).toMatchObject({
    ...{ code: 0, stdout: expect.stringMatching(/forked from +run_.*changed/s) },
  })
  const missing = await run('fork', runId, '--checkpoint', 'none')
  expect(missing).toMatchObject({ code: 1, stderr: expect.stringContaining('not_found, 404') })
  expect(await run('fork', runId)).toMatchObject({ code: 2 })
})

describe('respond', () => {
  /** A run that asks what became of a call, of a service of its own. */
  const asking = async () => {
    const first = await restartable()
    const { run_id } = await api(first).createRun(scripted([{ tool: 'pay', ms: 60_000 }]))
    const until = (status: string) =>
      api(first).waitForRun(run_id, { until: (one) => one.status === status })
    await until('waiting_on_tool')
    await first.kill()
    const next = await first.restart()
    onTestFinished(() => void next.kill())
    await until('waiting_on_human')
    return { run_id, ask: (...args: string[]) => cli(['run', ...args], { env: accessTo(next) }) }
  }

  test('settles a call by its outcome and result, as `why` says, and waits for the end', async () => {
    const { run_id, ask } = await asking()
    expect((await ask('why', run_id)).stdout).toContain(
      `runlane run respond ${run_id} --outcome succeeded|failed|retry`,
    )
    const answer = ['--outcome', 'succeeded', '--result', '{"paid":true}', '--wait', '--json']
    const answered = await ask('respond', run_id, ...answer)
    expect(answered).toMatchObject({
      ...{ code: 0, stderr: '' },
      json: [{ status: 'completed', output: { results: [{ paid: true }] } }],
    })
    const again = await ask('respond', run_id, '--answer', '{"outcome":"retry"}')
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('not_waiting, 409') })
  })

  test.each([
    [[], '--outcome'],
    [['--outcome', 'maybe'], '--outcome'],
    [['--outcome', 'retry', '--answer', '1'], '--answer'],
    [['--answer', '1', '--result', '1'], '--result'],
    [['--answer', '{'], '--answer'],
    [['--outcome', 'succeeded', '--result', '{'], '--result'],
  ])('with %j is wrong usage, and says of what', async (args, named) => {
    const { code, stderr } = await run('respond', 'run_1', ...args)
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(named) })
  })
})

test('stop ends the run of a conversation, once under a key', async () => {
  const runId = await running({ conversation_id: 'c stop' })
  const args = ['stop', 'c stop', '--reason', 'enough', '--key', 'k1', '--json']
  const stopped = await run(...args, '--wait')
  expect(stopped).toMatchObject({ code: 0, json: [{ run_id: runId, status: 'cancelled' }] })
  const again = await run(...args)
  expect(again).toMatchObject({ code: 0, json: [{ command: { kind: 'stop', status: 'applied' } }] })
  const { audit } = (await get('/api/v1/admin/audit?action=agent_runtime.stop')).body
  expect(audit).toMatchObject([{ run_id: runId, reason: 'enough' }])
})

test('of several active runs of a conversation stop names them', async () => {
  const lanes = ['a', 'b'].map((lane_key) => ({ conversation_id: 'two', lane_key }))
  const [a, b] = [await running(lanes[0]), await running(lanes[1])]
  const { code, stderr } = await run('stop', 'two')
  expect(code).toBe(1)
  expect(stderr).toMatch(/ambiguous_target, 409/)
  for (const runId of [a, b]) expect(stderr).toMatch(new RegExp(`^ {2}${runId}$`, 'm'))
})

test('recycle ends what is stuck, and what is not only by force', async () => {
  const well = await running()
  expect(await run('recycle', well)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('not_stuck, 409'),
  })
  const forced = await run('recycle', well, '--force', '--wait', '--json')
  expect(forced).toMatchObject({ code: 0, json: [{ status: 'failed', error_code: 'recycled' }] })
  expect((await run('recycle', await stuck())).stdout).toMatch(/^command +recycle applied$/m)
})

test('a resume that lacks what became of a call names it, and how to say it', async () => {
  const runId = await stuck()
  await run('recycle', runId, '--wait')
  const { code, stderr } = await run('resume', runId)
  expect(code).toBe(1)
  expect(stderr).toMatch(/unknown_tool_call, 409/)
  expect(stderr).toMatch(/^ {2}tool_1, a call of lost$/m)
  expect(stderr).toContain(`runlane run resume ${runId} --resolve tool_1=<outcome>\n`)
  const resumed = await run('resume', runId, '--resolve', 'tool_1=succeeded:7', '--wait', '--json')
  expect(resumed).toMatchObject({ code: 0, json: [{ output: { results: [7] } }] })
})

test('sweep recycles all that is stuck, and says which', async () => {
  const runId = await stuck()
  const text = await run('sweep', '--reason', 'spring')
  expect(text).toMatchObject({ code: 0, stdout: `recycled  1\n  ${runId}\n` })
  expect((await run('sweep', '--json')).json).toEqual([{ recycled: 0, run_ids: [] }])
})

test('extend gives an active run more time', async () => {
  const runId = await running()
  expect((await run('extend', runId, '--by', '10m')).stdout).toMatch(/^command +extend applied$/m)
  expect(await run('extend', runId)).toMatchObject({ code: 2 })
  expect(await run('extend', runId, '--by', '10')).toMatchObject({ code: 2 })
})

describe('--wait that runs out', () => {
  test('says what it saw last and what to do, to people and to programs', async () => {
    const runId = await stuck()
    const text = await run('cancel', runId, '--wait', '100ms')
    expect(text.code).toBe(4)
    expect(text.stdout).toMatch(/^status +cancel_requested, stuck: tool_call\.timeout\(300ms\)$/m)
    expect(text.stderr).toBe(
      `runlane: ${runId} did not end within 100ms: it is cancel_requested, stuck: tool_call.timeout(300ms)\n` +
        `  next: runlane run why ${runId}\n`,
    )
    const other = await stuck()
    const json = await run('cancel', other, '--wait', '100ms', '--json')
    expect(json).toMatchObject({ code: 4, json: [{ run_id: other, status: 'cancel_requested' }] })
    expect(JSON.parse(json.stderr)).toEqual({
      error: {
        ...{ code: 'wait_timeout', run_id: other, run_status: 'cancel_requested' },
        ...{ stuck_reason: 'tool_call.timeout(300ms)', next: `runlane run why ${other}` },
        detail: expect.stringContaining('did not end within 100ms'),
      },
    })
    for (const id of [runId, other])
      await post(`/api/v1/admin/agent-runtime/runs/${id}/recycle`, { force: true })
  })
})

describe('a caller whose role is too small', () => {
  test('sees the run, and that its children are not shown', async () => {
    const { token } = (await post('/api/v1/admin/tokens', { name: 'viewer', role: 'viewer' })).body
    const asViewer = { env: { ...env, RUNLANE_TOKEN: token } }
    const runId = await running()
    const args = ['run', 'show', runId, '--children']

    const { code, stdout, stderr } = await cli(args, asViewer)
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr:
        'runlane: the children are not shown: this needs the role operator, and yours is viewer\n',
    })
    expect(stdout).toMatch(/^status +running$/m)
    expect(stdout).not.toContain('children')
    const json = await cli([...args, '--json'], asViewer)
    expect(json).toMatchObject({ code: 1, json: [{ run_id: runId, subagents: null }] })
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'forbidden', run_id: runId } })
  })
})

describe('a token that is refused', () => {
  const asked = ['run', 'show', 'run_1', '--url', service.url]
  const elsewhere =
    /^ {2}a service keeps .* \.runlane\/admin-token of the folder where it was started$/m

  test('is named by where it came from, with the folder that a service keeps its own in', async () => {
    const wrong = await cli(asked, { env: { RUNLANE_TOKEN: 'of-another-service' } })
    expect(wrong.code).toBe(1)
    expect(wrong.stderr).toMatch(/^ {2}the token of RUNLANE_TOKEN is none of this service/m)
    expect(wrong.stderr).toMatch(elsewhere)
  })

  test('or is not there at all, when the service was started in another folder', async () => {
    const none = await cli(asked, { cwd: freshFolder() })
    expect(none.code).toBe(1)
    expect(none.stderr).toMatch(
      /^ {2}no token was sent: give one by --token-file or RUNLANE_TOKEN$/m,
    )
    expect(none.stderr).toMatch(elsewhere)
  })
})
