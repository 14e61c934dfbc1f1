import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { scripted, serve } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { restartable } from '../client/setup.ts'
import { accessTo, cli, ENTRY, freshFolder, startCli } from './setup.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const { service, createRun, waitForRun, cancel, events: eventsOf } = await serve('postgres')
const env = accessTo(service)
const started = async (steps: readonly unknown[]): Promise<string> => {
  const { run_id } = await createRun(scripted(steps))
  onTestFinished(() => void cancel(run_id))
  return run_id
}

describe('run events', () => {
  test('prints what was committed, one event a line', async () => {
    const runId = await started([{ say: 'Hi there' }, { tool: 't' }])
    await waitForRun(runId)
    const stored = await eventsOf(runId, { visibility: 'operator' })

    const json = await cli(['run', 'events', runId, '--json'], { env })
    expect(json).toMatchObject({ code: 0, stderr: '' })
    expect(json.json).toEqual(stored)
    const text = await cli(['run', 'events', runId], { env })
    const lines = text.stdout.trimEnd().split('\n')
    expect(lines).toHaveLength(stored.length)
    expect(lines[0]).toMatch(/^\d{4}-\d\d-\d\dT\S+Z +1 {2}run_created +agent=scripted /)
    expect(lines.at(-1)).toMatch(/run_status_changed +running → completed$/)

    const all = await eventsOf(runId)
    const after = ['run', 'events', runId, '--json', '--visibility', 'internal', '--after', '3']
    expect((await cli(after, { env })).json).toEqual(all.slice(3))
    expect((await cli([...after, '--follow'], { env })).json).toEqual(all.slice(3))
  })

  test('--follow goes on through a kill of the service, to the end of the run, each event once', async () => {
    const first = await restartable()
    const { run_id } = await api(first).createRun(
      scripted([
        { say: 'one two three', chunks: 10, ms: 1500 },
        { tool: 't', effects: 'none' },
      ]),
    )
    const running = startCli(['run', 'events', run_id, '--follow', '--json'], {
      env: accessTo(first),
    })
    await eventually(() => running.stdout().includes('message_delta'))
    await first.kill()
    const next = await first.restart()
    onTestFinished(() => void next.kill())
    const { code, json, stderr } = await running.ended

    expect(code).toBe(0)
    expect(json).toEqual(await api(next).events(run_id, { visibility: 'operator' }))
    expect(stderr).toMatch(/^(runlane: .*; again in \d+ ms\n)+$/)
  })

  test('--follow is ended by Ctrl-C without a word', async () => {
    const runId = await started([{ think: 60_000 }])
    const running = startCli(['run', 'events', runId, '-f'], { env })
    await eventually(() => running.stdout().includes('run_status_changed'))
    running.kill('SIGINT')
    expect(await running.ended).toMatchObject({ code: 130, stderr: '' })
  })

  test('a reader that has seen enough ends it without a word', async () => {
    const runId = await started([{ say: 'x'.repeat(400), chunks: 400, ms: 4000 }])
    const command = '{ "$0" "$1" run events "$2" --follow; echo "code $?" >&2; } | head -n 2'
    const node = join(ROOT, 'node_modules/.bin/node')
    const shell = spawn('sh', ['-c', command, node, ENTRY, runId], {
      env: { PATH: process.env['PATH'] ?? '', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const output = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      shell[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text))
    await new Promise((resolved) => shell.once('close', resolved))
    expect(output.stderr).toBe('code 0\n')
    expect(output.stdout.trimEnd().split('\n')).toEqual([
      expect.stringContaining('run_created'),
      expect.stringContaining('run_status_changed'),
    ])
  })
})

test('installed as a copy, where Node strips no types, it runs and needs only its own folders', async () => {
  const cwd = freshFolder()
  const copy = join(cwd, 'node_modules/runlane')
  mkdirSync(join(copy, 'src'), { recursive: true })
  cpSync(join(ROOT, 'package.json'), join(copy, 'package.json'))
  for (const part of ['cli', 'client', 'duration.ts'])
    cpSync(join(ROOT, 'src', part), join(copy, 'src', part), { recursive: true })
  for (const name of readdirSync(join(ROOT, 'node_modules')).filter((one) => !one.startsWith('.')))
    symlinkSync(join(ROOT, 'node_modules', name), join(cwd, 'node_modules', name))
  const entry = join(copy, 'src/cli/runlane.js')
  const { code, stdout, stderr } = await cli(['machine', 'print'], { env, cwd, entry })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toContain('run')
})

test('a Node that does not strip types by itself runs it all the same', async () => {
  const switchedOff = { ...env, NODE_OPTIONS: '--no-experimental-strip-types' }
  const { code, stdout, stderr } = await cli(['machine', 'print'], { env: switchedOff })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toContain('run')
})
