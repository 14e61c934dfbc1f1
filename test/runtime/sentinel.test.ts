import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'

const children: ChildProcess[] = []
afterAll(() => children.forEach((child) => child.kill('SIGKILL')))

function blocked(ms: number) {
  const script = resolve(import.meta.dirname, '../support/blocked-main.ts')
  const child = spawn(process.execPath, [script, String(ms)], { stdio: 'pipe' })
  children.push(child)
  const output = { out: '', lines: [] as Record<string, unknown>[] }
  child.stdout.on('data', (data: Buffer) => (output.out += data.toString()))
  child.stderr.on('data', (data: Buffer) => {
    for (const line of data.toString().split('\n').filter(Boolean))
      output.lines.push(JSON.parse(line) as Record<string, unknown>)
  })
  return { child, output, ended: once(child, 'exit') }
}

test('a blocked event loop is told of while it is blocked, and that it turns again; then the process ends', async () => {
  const { output, ended } = blocked(3_000)
  await eventually(() => output.lines.length > 0, { message: 'the first line' })
  expect(output.out).toBe('blocks\n')
  expect(output.lines[0]).toMatchObject({
    level: 'error',
    node_id: 'n1',
    runs: 7,
    message: 'the event loop is blocked: no run of this node moves, nobody is answered',
  })
  expect(await ended).toEqual([0, null])
  expect(output.lines.pop()).toMatchObject({ message: 'the event loop turns again' })
  // Not at each look: at 0.4, 0.8 and 1.6 s, where the machine lets the thread look then.
  const told = output.lines.map((line) => Number(line['blocked_ms']))
  expect(told.length).toBeGreaterThanOrEqual(2)
  for (const [nth, ms] of told.entries()) expect(ms).toBeGreaterThanOrEqual(400 * 2 ** nth)
})

test('a process that was frozen was not blocked', async () => {
  const { child, output, ended } = blocked(0)
  await eventually(() => output.out.includes('turns'), { message: 'the process to turn' })
  child.kill('SIGSTOP')
  await new Promise((thawed) => setTimeout(thawed, 1_500))
  child.kill('SIGCONT')
  expect(await ended).toEqual([0, null])
  expect(output.lines).toEqual([])
})
