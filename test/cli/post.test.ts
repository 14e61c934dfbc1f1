import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { serve } from '../http/setup.ts'
import { eventually } from '../support/eventually.ts'
import { startPlainProxy } from '../client/plain-proxy.ts'
import { accessTo, cli, freshFolder, startCli } from './setup.ts'

const { service, run: runOf, post: postTo } = await serve('postgres')
const env = accessTo(service)
const steps = (...all: unknown[]): string => JSON.stringify({ steps: all })

describe('run post', () => {
  test('posts a run, and shows it as text or as JSON', async () => {
    const text = await cli(['run', 'post', 'scripted', '--input', steps(), '--owner', '@ana'], {
      env,
    })
    expect(text).toMatchObject({ code: 0, stderr: '' })
    expect(text.stdout).toMatch(/^run +run_\w+\nagent +scripted\nstatus +\w+\n/)
    expect(text.stdout).toMatch(/^owner +@ana$/m)

    const json = await cli(['run', 'post', 'scripted', '--input', steps(), '--json'], { env })
    expect(json).toMatchObject({ code: 0, stderr: '', json: [{ agent: 'scripted' }] })
    expect(await runOf(json.json[0].run_id)).toMatchObject({ created_by: 'token:admin' })
  })

  test('sends what its options say, to its field', async () => {
    const args = ['run', 'post', 'scripted', '--json', '--input', '-', '--conversation', 'c 1']
    args.push('--surface', 'chat', '--priority', '-5', '--metadata', '{"a":1}', '--owner', 'x')
    args.push('--lane', 'lane-1', '--lane-policy', 'enqueue', '--queue', 'default')
    const { code, json } = await cli(args, { env, stdin: steps({ return: 1 }) })
    expect(code).toBe(0)
    expect(json[0]).toMatchObject({
      ...{ conversation_id: 'c 1', surface: 'chat', priority: -5, metadata: { a: 1 } },
      ...{ owner: 'x', lane_key: 'lane-1', input: { steps: [{ return: 1 }] } },
    })
  })

  test('takes the whole body from a file, and options before it', async () => {
    const cwd = freshFolder()
    const body = { agent: 'scripted', input: { steps: [] }, priority: 1, owner: 'file' }
    writeFileSync(join(cwd, 'body.json'), JSON.stringify(body))
    const args = ['run', 'post', '--body', '@body.json', '--owner', 'option', '--json']
    expect((await cli(args, { env, cwd })).json).toMatchObject([{ priority: 1, owner: 'option' }])
  })

  test('under one key posts one run', async () => {
    const args = ['run', 'post', 'scripted', '--input', steps(), '--key', 'k1', '--json']
    const [a, b] = [await cli(args, { env }), await cli(args, { env })]
    expect(b.json[0].run_id).toBe(a.json[0].run_id)
  })

  test('--wait answers the end, with 0 when it completed and 4 when it did not', async () => {
    const wait = (input: string, ...more: string[]) =>
      cli(['run', 'post', 'scripted', '--input', input, '--json', ...more], { env })
    const good = await wait(steps({ think: 100 }, { return: 7 }), '--wait')
    expect(good).toMatchObject({ code: 0, json: [{ status: 'completed', output: 7 }] })
    const bad = await wait(steps({ fail: 'no' }), '--wait')
    expect(bad).toMatchObject({ code: 4, json: [{ status: 'failed', error_message: 'no' }] })

    const late = await wait(steps({ think: 60_000 }), '--wait', '200ms')
    expect(late).toMatchObject({ code: 4, json: [{ status: 'running' }] })
    expect(JSON.parse(late.stderr)).toMatchObject({
      error: {
        code: 'wait_timeout',
        detail: expect.stringMatching(/within 200ms: it is running$/),
      },
    })
    await postTo(`/runs/${late.json[0].run_id}/cancel`, {})
  })

  test('--wait is left by Ctrl-C, and says which run goes on', async () => {
    const input = steps({ think: 60_000 })
    const running = startCli(['run', 'post', 'scripted', '--input', input, '--wait'], { env })
    await eventually(() => running.stderr().includes('posted run_'))
    running.kill('SIGINT')
    const { code, stdout, stderr } = await running.ended
    const [, runId = ''] = /posted (run_\w+)/.exec(stderr) ?? []
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' })
    expect(stderr).toBe(`posted ${runId}\nrunlane: ${runId} goes on\n`)
    expect(await runOf(runId)).toMatchObject({ cancel_requested: false })
    await postTo(`/runs/${runId}/cancel`, {})
  })
})

describe('what goes wrong', () => {
  test('is named by its field when the service refuses it, with 1', async () => {
    const bad = ['run', 'post', 'scripted', '--input', steps({ think: 'x' })]
    const { code, stdout, stderr } = await cli(bad, { env })
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toContain('(validation_error, 422)')
    expect(stderr).toMatch(/^ {2}input\.steps\[0\]\.think: \S/m)
    expect(stderr).toMatch(/^ {2}request \S+/m)
    expect(stderr).not.toContain('    at ')

    const forPrograms = await cli([...bad, '--json'], { env })
    expect(forPrograms).toMatchObject({ code: 1, stdout: '' })
    expect(JSON.parse(forPrograms.stderr)).toMatchObject({
      error: { status: 422, code: 'validation_error', errors: [{ path: 'input.steps[0].think' }] },
    })
    expect((await cli(['run', 'show', 'run_none'], { env })).code).toBe(1)
  })

  test.each([
    [['run', 'post', 'scripted', '--input', '{'], '--input'],
    [['run', 'post', 'scripted', '--input', '@missing.json'], '--input'],
    [['run', 'post', 'scripted', '--metadata', 'x'], '--metadata'],
    [['run', 'post', 'scripted', '--priority', 'high'], '--priority'],
    [['run', 'post', 'scripted', '--wait', '5'], '--wait'],
    [['run', 'post', 'scripted', '--input', '1', '--message', 'x'], '--message'],
    [['run', 'post', 'scripted', '--bogus'], '--bogus'],
    [['run', 'post'], 'agent'],
    [['run', 'show'], 'run_id'],
    [['run', 'events', 'run_1', '--after', '-1'], '--after'],
    [['run', 'events', 'run_1', '--visibility', 'all'], '--visibility'],
    [['run', 'resume', 'run_1', '--resolve', 'call=maybe'], '--resolve'],
    [['run', 'dance'], 'dance'],
    [['machine', 'print', 'run', '--format', 'png'], '--format'],
    [['status', '--url', 'nowhere'], '--url'],
    [['status', '--url', 'ftp://x'], '--url'],
    [['status', '--token', 'a\nb'], '--token'],
    [['status', '--token-file', 'missing'], '--token-file'],
  ])('is wrong usage with 2, and names what: %j', async (args, named) => {
    const { code, stdout, stderr } = await cli(args, { env })
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(named)
    expect(stderr).not.toContain('    at ')
  })

  test('is 3 when nobody answers, soon and in one line', async () => {
    const proxy = await startPlainProxy(service.url)
    await proxy.close()
    for (const args of [['status'], ['run', 'events', 'run_1', '--follow']]) {
      const { code, stdout, stderr } = await cli(args, { env: { ...env, RUNLANE_URL: proxy.url } })
      expect({ code, stdout }).toEqual({ code: 3, stdout: '' })
      expect(stderr).toMatch(
        /^runlane: http:\/\/127\.0\.0\.1:\d+ cannot be reached: .*ECONNREFUSED.*\n$/,
      )
    }
  })
})

describe('address and token', () => {
  const asked = ['status', '--json']
  const url = { RUNLANE_URL: service.url }

  test('come from options before the environment', async () => {
    const wrong = { RUNLANE_URL: 'http://127.0.0.1:1', RUNLANE_TOKEN: 'wrong' }
    const args = [...asked, '--url', service.url, '--token', service.token]
    expect(await cli(args, { env: wrong })).toMatchObject({ code: 0 })
    const refused = await cli(asked, { env: { ...url, RUNLANE_TOKEN: 'wrong' } })
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('unauthorized') })
  })

  test('the token comes from a file, or from the data directory of a service on this machine', async () => {
    const cwd = freshFolder()
    expect((await cli(asked, { env: url, cwd })).json[0]).not.toHaveProperty('identity')
    writeFileSync(join(cwd, 'token'), `${service.token}\n`)
    const byFile = await cli([...asked, '--token-file', 'token'], { env: url, cwd })
    expect(byFile.json[0]).toMatchObject({ identity: { role: 'admin' } })

    mkdirSync(join(cwd, '.runlane'))
    writeFileSync(join(cwd, '.runlane/admin-token'), `${service.token}\n`)
    chmodSync(join(cwd, '.runlane/admin-token'), 0o600)
    const byFolder = await cli(asked, { env: url, cwd })
    expect(byFolder.json[0]).toMatchObject({ identity: { role: 'admin' } })
  })

  test('the token of this machine is sent nowhere else', async () => {
    const { connect } = await import('../../src/cli/connection.ts')
    const io = {
      ...{ write: async () => {}, note: () => {}, readInput: async () => '', environment: {} },
      version: '0',
      readFile: async () => 'rl_local',
      ended: new AbortController().signal,
    }
    const tokenOf = async (address: string) => (await connect({ url: address }, io)).tokenOf
    for (const near of ['http://127.0.0.1:7420', 'http://localhost', 'http://[::1]:1', ''])
      expect(await tokenOf(near)).toBe('.runlane/admin-token')
    for (const far of ['http://10.0.0.1', 'https://example.com', 'http://127.0.0.1.example.com'])
      expect(await tokenOf(far)).toBeUndefined()
  })

  test('the help tells of them, and of the exit codes', async () => {
    const { code, stdout } = await cli(['--help'])
    expect(code).toBe(0)
    for (const word of [
      'RUNLANE_URL',
      'RUNLANE_TOKEN',
      '.runlane/admin-token',
      'stop its start',
      '130',
    ])
      expect(stdout).toContain(word)
    expect(await cli([])).toMatchObject({ code: 2, stdout: '' })
  })
})
