import { expect, test } from 'vitest'
import { createLogger } from '../../src/log.ts'

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
