import { expect, test } from 'vitest'
import { diagnose } from '../../src/runtime/diagnosis/diagnosis.ts'
import { GATES } from '../../src/runtime/diagnosis/gates.ts'
import type { WaitFacts } from '../../src/store/diagnosis.ts'
import { AT, RULES, WELL } from '../support/wait-facts.ts'

const question = (kind: string) => ({
  ...{ token_id: kind, kind, name: null, prompt: `${kind}?`, created_at: AT, expires_at: null },
})
const asking = (kind: string): Partial<WaitFacts> => ({
  ...{ status: 'waiting_on_human', owner: null, questions: [question(kind)] },
})
const stuck = (stuck_reason: string): Partial<WaitFacts> => ({ stuck_reason, stuck_since: AT })

/** Worst first. */
const CHILDREN: readonly (readonly [string, Partial<WaitFacts>])[] = [
  ['node.lost', { owner: null, ...stuck('turn.timeout(600s)') }],
  ['executor.unresponsive', stuck('executor.unresponsive(15s)')],
  ['turn.exceeded', stuck('turn.timeout(600s)')],
  ['tool.in_flight', { status: 'waiting_on_tool', ...stuck('tool_call.timeout(150s)') }],
  ['human.waiting', asking('unknown_tool_call')],
  ['queue.paused', { status: 'queued', queue: { ...WELL.queue, paused: true } }],
  ['human.waiting', asking('ask_human')],
  ['signal.waiting', asking('signal')],
  ['tool.in_flight', { status: 'waiting_on_tool' }],
  ['progressing', {}],
]

const parentOf = (children: readonly string[]): WaitFacts => ({
  ...{ ...WELL, run_id: 'parent', status: 'waiting_on_child' },
  open_children: children.map((run_id) => ({
    ...{ run_id, agent: 'a', status: 'running', stuck_reason: null },
  })),
  open_child_count: children.length,
})

test.each(CHILDREN.map(([gate], nth) => [gate, nth] as const))(
  'of several ends of a chain the sentence tells the worst: %s, %i',
  async (gate, nth) => {
    const rest = CHILDREN.slice(nth)
    for (const order of [rest, rest.toReversed()]) {
      const facts = new Map(
        order.map(([, more], at) => [`child-${at}`, { ...WELL, ...more, run_id: `child-${at}` }]),
      )
      facts.set('parent', parentOf([...facts.keys()]))
      const found = await diagnose('parent', { read: async (id) => facts.get(id), rules: RULES })
      const worst = `child-${order.indexOf(rest[0] ?? never())}`
      const cause = found?.causes.find((one) => one.run_id === worst)
      expect(cause?.gate).toBe(gate)
      expect(found?.summary).toContain(`: ${cause?.evidence}`)
      expect(found?.summary.endsWith(cause?.evidence ?? 'none')).toBe(true)
    }
  },
)

const never = (): never => {
  throw new Error('nothing is left')
}

test('no run has two causes of one gate, and the worst comes first', async () => {
  const statuses = [
    'resuming',
    'running',
    'waiting_on_tool',
    'waiting_on_child',
    'cancel_requested',
  ]
  const reasons = [
    null,
    'turn.timeout(600s)',
    'executor.unresponsive(15s)',
    'tool_call.timeout(1s)',
  ]
  for (const status of statuses)
    for (const reason of reasons)
      for (const owner of [null, WELL.owner]) {
        const more = reason === null ? {} : stuck(reason)
        const facts = { ...WELL, ...more, owner, status } as WaitFacts
        const found = await diagnose('run', { read: async () => facts, rules: RULES })
        const gates = found?.causes.map((one) => one.gate) ?? []
        expect(new Set(gates).size, `${status} ${reason}`).toBe(gates.length)
        if (owner === null) expect(gates[0]).toBe('node.lost')
        else if (reason !== null) expect(found?.causes[0]?.evidence).toContain(reason)
      }
})

test.each([
  ['auto', 1, 'wait: another node takes it over within seconds'],
  ['auto', 0, 'start a node, which takes it over'],
  ['manual', 1, /^wait: another node makes it timed_out, to be resumed .* within seconds$/],
] as const)(
  'of a lost node, with recovery %s and %i nodes that serve, it says what will become of the run',
  async (recovery, serving, action) => {
    const facts = { ...WELL, owner: null, serving } as WaitFacts
    const found = await diagnose('run', { read: async () => facts, rules: { ...RULES, recovery } })
    expect(found?.causes[0]?.action).toMatch(action)
  },
)

const CLOCK = { tool_call_id: null, limit_ms: 5_000, age_ms: 1_000, stands: false }
const LATER = '2026-01-01T00:00:02.000Z'
const causeOf = async (more: Partial<WaitFacts>) => {
  const facts = { ...WELL, clock_at: AT, now: LATER, ...more }
  return (await diagnose('run', { read: async () => facts, rules: RULES }))?.causes[0]
}

test('a clock that the row has goes on from there, and where it has none that is said', async () => {
  const clock = { ...CLOCK, reason: 'reasoning.no_progress(5s)', left_ms: 4_000 }
  expect(await causeOf({ clock })).toMatchObject({
    ...{ limit: 5_000, current: 3_000 },
    ...{ since: '2025-12-31T23:59:59.000Z', deadline: '2026-01-01T00:00:04.000Z' },
    evidence: 'It works. Its next deadline: reasoning.no_progress(5s).',
  })
  expect((await causeOf({}))?.evidence).toBe(
    'It works. Its executor is about to begin it: no clock counts before.',
  )
})

test('what is stuck is not said to be ended where its node spares all of its kind', async () => {
  const reason = 'tool_call.timeout(1s)'
  const of = (systemic: string | null) =>
    causeOf({
      ...{
        ...stuck(reason),
        status: 'waiting_on_tool',
        clock: { ...CLOCK, reason, left_ms: 4_000 },
      },
      owner: { ...(WELL.owner ?? never()), systemic },
    })
  const ended = { deadline: '2026-01-01T00:00:04.000Z' }
  expect(await of(null)).toMatchObject(ended)
  expect(await of('turn: 30 of 40 runs')).toMatchObject(ended)
  for (const held of ['tool: 30 of 30 runs', 'all: 30 of 40 runs']) {
    const found = await of(`heartbeat: 1 of 1 runs, ${held}`)
    expect(found?.deadline).toBeNull()
    expect(found?.evidence).toContain(`too many at once (${held})`)
  }
})

test('what a run is stuck with stands still while it waits for its children', async () => {
  const clock = { ...CLOCK, reason: 'turn.timeout(5s)', age_ms: 6_000, left_ms: null, stands: true }
  const found = await causeOf({ ...stuck(clock.reason), status: 'waiting_on_child', clock })
  expect(found).toMatchObject({ limit: 5_000, current: 6_000, deadline: null })
})

test('the worst gates come first in the list, and merely to progress last', () => {
  expect(GATES.slice(0, 4)).toEqual([
    ...(['cycle', 'node.lost', 'executor.unresponsive', 'turn.exceeded'] as const),
  ])
  expect(GATES.at(-1)).toBe('progressing')
})

test('of several calls the one that hangs is named, and no other', async () => {
  const calls = ['fine', 'hangs'].map((tool) => ({
    tool,
    tool_call_id: `${tool}_1`,
    started_at: AT,
  }))
  const found = { ...stuck('tool_call.timeout(1s)'), stuck_call: 'hangs_1', calls }
  const facts = { ...WELL, ...found, status: 'waiting_on_tool' } as WaitFacts
  const told = await diagnose('run', { read: async () => facts, rules: RULES })
  expect(told?.causes).toMatchObject([
    {
      holder: 'hangs_1',
      evidence: 'The watchdog found its call of hangs stuck: tool_call.timeout(1s).',
    },
  ])
})
