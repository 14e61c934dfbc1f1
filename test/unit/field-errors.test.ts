import { describe, expect, test } from 'vitest'
import type { z } from 'zod'
import { ENDPOINTS } from '../../src/http/contract/all.ts'
import { fitted } from '../../src/field-errors.ts'

const partOf = (operation: string, part: 'body' | 'query'): z.ZodObject => {
  const schema = ENDPOINTS.find(({ id }) => id === operation)?.[part]
  if (!schema) throw new Error(`${operation} has no ${part}`)
  return schema
}
/** As they are read: each path with what goes on after it. */
const readings = (operation: string, part: 'body' | 'query', value: unknown): string[] =>
  (fitted(partOf(operation, part), value).errors ?? []).map(({ path, message }) =>
    [path || 'the body', message].join(' '),
  )

const run = (more: object) => ({ agent: 'a', ...more })
const declared = (more: object) => ({ name: 'a', models: ['openai:x'], ...more })
const tool = (more: object) =>
  declared({ tools: [{ name: 't', description: '', input_schema: {}, url: 'u', ...more }] })
const RUN = 'postRun'
const AGENT = 'declareAgent'
const long = 'x'.repeat(256)

describe('what does not fit reads as a sentence', () => {
  test.each<[string, 'body' | 'query', unknown, string]>([
    [RUN, 'body', [], 'the body must be an object, not an array'],
    [RUN, 'body', null, 'the body must be an object, not null'],
    [RUN, 'body', 'x', 'the body must be an object, not a string'],
    [RUN, 'body', {}, 'agent is required'],
    [RUN, 'body', { agent: 7 }, 'agent must be a string, not a number'],
    [RUN, 'body', { agent: null }, 'agent must be a string, not null'],
    [RUN, 'body', { agent: '' }, 'agent must not be empty'],
    [RUN, 'body', { agent: long }, 'agent must have at most 255 characters'],
    [RUN, 'body', run({ owner: true }), 'owner must be a string, not true'],
    [RUN, 'body', run({ priority: '1' }), 'priority must be a number, not a string'],
    [RUN, 'body', run({ priority: 1.5 }), 'priority must be a whole number'],
    [RUN, 'body', run({ priority: 2_000_000 }), 'priority must be at most 1000000'],
    [RUN, 'body', run({ priority: -2_000_000 }), 'priority must be at least -1000000'],
    [
      RUN,
      'body',
      run({ hold_lane_on_human: 1 }),
      'hold_lane_on_human must be true or false, not a number',
    ],
    [
      RUN,
      'body',
      run({ lane_policy: 7 }),
      'lane_policy must be "enqueue", "reject", "interrupt" or "coalesce"',
    ],
    [
      RUN,
      'body',
      run({ lane_policy: 'rejct' }),
      'lane_policy must be "enqueue", "reject", "interrupt" or "coalesce", did you mean "reject"?',
    ],
    [
      RUN,
      'body',
      run({ run_at: 'soon' }),
      'run_at must be a time with its offset, such as 2026-04-15T10:01:23Z',
    ],
    [RUN, 'body', run({ run_at: '0000-01-01T00:00:00Z' }), 'run_at must be in the years 1 to 9999'],
    [RUN, 'body', run({ timeouts: [] }), 'timeouts must be an object, not an array'],
    [RUN, 'body', run({ timeouts: { tool: 5 } }), 'timeouts.tool must be a string, not a number'],
    [
      RUN,
      'body',
      run({ timeouts: { tool: '5' } }),
      'timeouts.tool needs a unit: ms, s, m, h or d, such as "30s"',
    ],
    [
      RUN,
      'body',
      run({ timeouts: { tol: '5s' } }),
      'timeouts.tol is an unknown field, did you mean "tool"?',
    ],
    [RUN, 'body', run({ metadata: [] }), 'metadata must be an object'],
    [RUN, 'body', run({ callback_url: 7 }), 'callback_url must be a string, not a number'],
    [RUN, 'body', run({ prio: 7 }), 'prio is an unknown field'],
    ['postRuns', 'body', {}, 'runs is required'],
    ['postRuns', 'body', { runs: {} }, 'runs must be an array, not an object'],
    ['postRuns', 'body', { runs: [] }, 'runs must not be empty'],
    [
      'postRuns',
      'body',
      { runs: Array.from({ length: 1001 }, () => ({ agent: 'a' })) },
      'runs must have at most 1000 items',
    ],
    ['postRuns', 'body', { runs: [{ agent: 'a' }, {}] }, 'runs[1].agent is required'],
    ['resumeRun', 'body', { resolutions: [] }, 'resolutions must be an object, not an array'],
    ['resumeRun', 'body', { resolutions: { c1: {} } }, 'resolutions.c1.outcome is required'],
    [
      'resumeRun',
      'body',
      { resolutions: { c1: { outcome: 'no' } } },
      'resolutions.c1.outcome must be "succeeded", "failed" or "retry"',
    ],
    ['respond', 'body', {}, 'answer is required'],
    [
      'createToken',
      'body',
      { name: '-', role: 'viewer' },
      'name must be 1 to 100 letters, digits, _ - . or @',
    ],
    [
      'createToken',
      'body',
      { name: 'a', role: 'amin' },
      'role must be "viewer", "service", "operator" or "admin", did you mean "admin"?',
    ],
    ['extendRun', 'body', {}, 'by is required'],
    ['recycleRun', 'body', { force: 'yes' }, 'force must be true or false, not a string'],
    [AGENT, 'body', declared({ models: [] }), 'models must not be empty'],
    [AGENT, 'body', declared({ models: 'openai:x' }), 'models must be an array, not a string'],
    [
      AGENT,
      'body',
      declared({ budget: { tokens: 1 } }),
      'budget.tokens is not supported by this version: leave the budget out or empty',
    ],
    [AGENT, 'body', declared({ max_turns: 0 }), 'max_turns must be at least 1'],
    [
      AGENT,
      'body',
      tool({ needs_approval: true }),
      'tools[0].needs_approval must be false: in this version nobody would be asked',
    ],
    [
      AGENT,
      'body',
      tool({ headers: { 'a b': 'x' } }),
      'tools[0].headers.a b is not the name of a header',
    ],
    [
      AGENT,
      'body',
      tool({ headers: { host: 'x' } }),
      'tools[0].headers must not set host, content-length, content-type, transfer-encoding, connection, keep-alive, upgrade, expect, idempotency-key',
    ],
    ['listRuns', 'query', { limit: '0' }, 'limit must be at least 1'],
    ['listRuns', 'query', { limit: '1001' }, 'limit must be at most 1000'],
    ['listRuns', 'query', { limit: 'x' }, 'limit must be a whole number'],
    ['listRuns', 'query', { q: '' }, 'q must not be empty'],
    ['listRuns', 'query', { stuck: 'yes' }, 'stuck must be "true" or "false"'],
    ['listRuns', 'query', { cursor: 'x' }, 'cursor is not a cursor of this list'],
    ['listRuns', 'query', { stauts: 'x' }, 'stauts is an unknown field, did you mean "status"?'],
    ['getRun', 'query', { wait: '6m' }, 'wait must be at most 300s'],
  ])('%s %s %j: %s', (operation, part, value, reading) => {
    expect(readings(operation, part, value)).toEqual([reading])
  })

  test('of a number that is no safe integer too', () => {
    expect(readings(RUN, 'body', run({ priority: 1e300 }))).toContain('priority is too large')
    expect(readings(RUN, 'body', run({ priority: -1e300 }))).toContain('priority is too small')
  })
})
