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
  // At 0.4, 0.8 and 1.6 s, and not at each look.
  const told = output.lines.map(({ message }) => String(message).slice(0, 25))
  expect(told).toEqual([...Array(3).fill('the event loop is blocked'), 'the event loop turns agai'])
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
