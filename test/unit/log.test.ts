import { expect, test } from 'vitest'
import { createLogger } from '../../src/log.ts'
import { SparingLog } from '../../src/sparing-log.ts'

function logged(facts: Record<string, unknown>): { line: string; parsed: Record<string, unknown> } {
  let line = ''
  const log = createLogger('n1', { write: (text: string) => void (line += text) })
  log.warn(facts, 'something happened')
  return { line, parsed: JSON.parse(line) as Record<string, unknown> }
}

test('a line is one JSON object with level, time, node, facts and what happened', () => {
  const { line, parsed } = logged({ run_id: 'run_1', problem: 'two\nlines' })

  expect(line.endsWith('\n') && !line.slice(0, -1).includes('\n')).toBe(true)
  expect(parsed).toEqual({
    level: 'warn',
    at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    node_id: 'n1',
    run_id: 'run_1',
    problem: 'two\nlines',
    message: 'something happened',
  })
})

test.each([
  'token',
  'authorization',
  'cookie',
  'password',
  'headers',
  'input',
  'prompt',
  'payload',
])('a fact that is called %s is never written, wherever it stands', (name) => {
  const { line } = logged({ [name]: 'hush-1', request: { [name]: 'hush-2' } })
  expect(line).not.toContain('hush')
  expect(line).toContain('[redacted]')
})

test('a kind of line that anybody may cause is written at once, then once a minute, with how often it came', () => {
  const lines: unknown[] = []
  const write = (facts: object, message: string) => void lines.push({ ...facts, message })
  const log = new SparingLog({ info: write, warn: write, error: write })
  const tell = (kind: string, now: number) => log.tell('warn', kind, { now }, kind, now)

  for (let now = 0; now < 60_000; now += 100) tell('many', now)
  tell('one', 59_000)
  tell('many', 60_000)

  expect(lines).toEqual([
    { now: 0, times: 1, message: 'many' },
    { now: 59_000, times: 1, message: 'one' },
    { now: 60_000, times: 600, message: 'many' },
  ])
})
