import { describe, expect, onTestFinished, test } from 'vitest'
import { scripted, serve } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { restartable } from '../client/setup.ts'
import { accessTo, cli } from './setup.ts'

const served = await serve('postgres')
const { service, createRun, waitForRun, cancel } = served
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

test('cancel asks, and with --wait waits until it is over', async () => {
  const runId = await running()
  const waited = await run('cancel', runId, '--reason', 'enough', '--wait', '--json')
  expect(waited).toMatchObject({ code: 0, json: [{ run_id: runId, status: 'cancelled' }] })
  const again = await run('cancel', runId)
  expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('not_cancellable') })

  const asked = await run('cancel', await running())
  expect(asked.code).toBe(0)
  expect(asked.stdout).toMatch(/^command +cancel (applied|pending)$/m)
})

describe('resume', () => {
  test('shows before what it would do, and puts a failed run back in line', async () => {
    const runId = await started([{ tool: 'search', call_id: 'c1' }, { fail: 'no' }])
    await waitForRun(runId)
    const preview = await run('resume', runId, '--preview')
    expect(preview.code).toBe(0)
    expect(preview.stdout).toMatch(/^resume +possible$/m)
    expect(preview.stdout).toMatch(/^ {2}\S+ +tool +search +succeeded +answers from its record$/m)

    const resumed = await run('resume', runId, '--wait', '--json')
    expect(resumed).toMatchObject({ code: 4, json: [{ status: 'failed', attempt: 2 }] })
  })

  test('of a run that cannot be says what is in its way', async () => {
    const runId = await started([])
    await waitForRun(runId)
    const { code, stderr } = await run('resume', runId)
    expect(code).toBe(1)
    expect(stderr).toMatch(/not_resumable, 409/)
    expect(stderr).toMatch(/^ {2}in its way: .*completed/m)
  })
})

describe('show', () => {
  test('prints what is known of a run, and the children that it has', async () => {
    const runId = await started([{ return: { a: [1, 2] } }])
    await waitForRun(runId)
    const { code, stdout } = await run('show', runId, '--children')
    expect(code).toBe(0)
    expect(stdout).toMatch(/^status +completed$/m)
    expect(stdout).toMatch(/^output\n {2}\{\n {4}"a": \[/m)
    expect(stdout).toMatch(/^children\n {2}none$/m)
    const json = await run('show', runId, '--children', '--json')
    expect(json.json).toMatchObject([{ run_id: runId, subagents: [] }])
  })

  test('says how far a cancel has come', async () => {
    const runId = await running()
    expect((await run('show', runId)).stdout).not.toMatch(/^cancel/m)
    await cancel(runId, { reason: 'enough' })
    await waitForRun(runId)
    const { stdout } = await run('show', runId)
    const [line = ''] = stdout.match(/^cancel .*$/m) ?? []
    expect(line.replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')).toMatch(
      /^cancel +requested TIME by token:admin, delivered TIME by \S+, acknowledged TIME by executor, confirmed TIME by runtime, reason: enough$/,
    )
  })

  test('shows hostile text, and lets none of it act', async () => {
    const evil = '\u001B[2J\u001B]0;owned\u0007\u009B31m\u202Egnp.exe\r\nstatus completed'
    const runId = await started([{ say: evil }, { fail: evil }], { owner: evil })
    await waitForRun(runId)
    for (const args of [
      ['show', runId],
      ['events', runId],
      ['why', runId],
    ]) {
      for (const format of [[], ['--json']]) {
        const { code, stdout } = await run(...args, ...format)
        expect(code).toBe(0)
        expect(stdout.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Bidi_Control}]/u)
        expect(stdout).toContain('\\u202e')
      }
      expect((await run(...args)).stdout).not.toMatch(/^status completed$/m)
    }
  })
})

describe('why', () => {
  test('names what a run waits for, since when, and who holds its lane', async () => {
    const holder = await running({ conversation_id: 'lane' })
    const runId = await started([], { conversation_id: 'lane' })
    const { code, stdout } = await run('why', runId)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^status +waiting_on_lane$/m)
    expect(stdout).toMatch(/^since +\d{4}-\d\d-\d\dT/m)
    expect(stdout).toMatch(/^lane +conversation:lane$/m)
    expect(stdout).toMatch(new RegExp(`^lane held by +${holder} \\(running\\)$`, 'm'))
    expect(stdout).toMatch(/^last events\n( {2}\S.*\n)+$/m)
    const { json } = await run('why', runId, '--json')
    expect(json).toMatchObject([{ run: { run_id: runId }, lane_holder: { run_id: holder } }])
  })

  test('shows what a run asks, and is told when it is not', async () => {
    const first = await restartable()
    const access = { env: accessTo(first) }
    const { createRun: create, events } = api(first)
    const { run_id } = await create(scripted([{ tool: 'pay', ms: 60_000, effects: 'unsafe' }]))
    await api(first).waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_tool' })
    expect((await cli(['run', 'why', run_id], access)).stdout).not.toContain('asks')
    await first.kill()
    const next = await first.restart()
    onTestFinished(() => void next.kill())
    await api(first).waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_human' })

    const asked = (await events(run_id)).find(({ event_type }) => event_type === 'human_asked')
    const { code, stdout } = await cli(['run', 'why', run_id], access)
    expect(code).toBe(0)
    expect(stdout).toContain(`asks  ${asked?.payload.prompt}`)
    expect(stdout).toContain(`token ${asked?.payload.token_id}`)
    expect(stdout).toMatch(/^it means +it waits for an answer$/m)
  })
})

describe('status', () => {
  test('says how the service is, and who asks', async () => {
    await running()
    const { code, stdout } = await cli(['status'], { env })
    expect(code).toBe(0)
    expect(stdout).toMatch(/^ready +yes \(database yes, lease yes\)$/m)
    expect(stdout).toMatch(/^you +token:admin, admin$/m)
    expect(stdout).toMatch(/^unfinished +\d+ \(.*\d+ running.*\)$/m)
    expect(stdout).toMatch(/^nodes\n {2}node +status/m)
  })

  test('of a conversation shows its run, and after a bad end what is left to do', async () => {
    const journal = { objective: 'ship it', next_action: 'call Ana' }
    const runId = await started([{ journal }, { fail: 'no' }], { conversation_id: 'bad end' })
    await waitForRun(runId)
    const { code, stdout } = await cli(['status', 'bad end'], { env })
    expect(code).toBe(0)
    expect(stdout).toMatch(/^status +failed$/m)
    expect(stdout).toMatch(/^Run failed$/m)
    expect(stdout).toMatch(/^ {2}next action\n {4}call Ana$/m)
    expect(stdout).toContain(`runlane run resume ${runId}`)
    expect((await cli(['status', 'no such'], { env })).code).toBe(1)
  })
})

test('machine print shows a chart as text, Mermaid, SVG or JSON', async () => {
  const print = async (...args: string[]) =>
    (await cli(['machine', 'print', ...args], { env })).stdout
  expect(await print()).toMatch(/^machine +version\nrun +\d+$/m)
  expect(await print('run')).toMatch(/^queued +run\.claimed +.*active/m)
  expect(await print('run', '--format', 'mermaid')).toContain('stateDiagram')
  expect(await print('run', '--format', 'svg')).toContain('<svg')
  expect(JSON.parse(await print('run', '--format', 'json'))).toMatchObject({ id: 'run' })
  expect(JSON.parse(await print('run', '--json'))).toMatchObject({ id: 'run' })
  expect(await cli(['machine', 'print', 'none'], { env })).toMatchObject({ code: 1, stdout: '' })
})
