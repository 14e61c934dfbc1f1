import { describe, expect, test, vi } from 'vitest'
import { ToolError } from '../../src/agents/agent.ts'
import { SessionControl } from '../../src/agents/control.ts'
import type { SessionMessage, SessionPort } from '../../src/agents/port.ts'
import { runSession } from '../../src/agents/session.ts'
import { type Attempt, attempt, jobOf, type Run, type Tools, toolsOf } from '../support/attempt.ts'

const typesOf = ({ messages }: Attempt): string[] => messages.map(({ type }) => type)
const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Tools that end in this order, however they were started. */
function endingAs(order: string[]): Tools {
  const gates = new Map(order.map((name) => [name, Promise.withResolvers<void>()]))
  const started = new Set<string>()
  const release = async (): Promise<void> => {
    if (started.size < order.length) return
    for (const name of order) {
      gates.get(name)?.resolve()
      for (let turn = 0; turn < 5; turn += 1) await nextTurn()
    }
  }
  const tool = (name: string) => async () => {
    started.add(name)
    void release()
    await gates.get(name)?.promise
    return `result of ${name}`
  }
  return Object.fromEntries(order.map((name) => [name, tool(name)]))
}

describe('recorded calls', () => {
  const together =
    (log: string[]): Run =>
    async (ctx) => {
      const call = async (name: string): Promise<void> => {
        log.push(`${name}: ${JSON.stringify(await ctx.tool(name))}`)
        await ctx.step(`after ${name}`, () => name)
        log.push(`after ${name}`)
      }
      await Promise.all([call('a'), call('b'), call('c')])
      return log.length
    }

  test('that ran together answer in the order in which they ended, without being made again', async () => {
    const first: string[] = []
    const original = await attempt(together(first), endingAs(['c', 'a', 'b']))
    expect(first.filter((line) => line.includes(':')).map((line) => line[0])).toEqual([
      'c',
      'a',
      'b',
    ])

    const second: string[] = []
    const again = vi.fn()
    const replay = await attempt(
      together(second),
      { a: again, b: again, c: again },
      original.envelope,
    )
    expect(second).toEqual(first)
    expect(again).not.toHaveBeenCalled()
    expect(typesOf(replay)).toEqual(['run.completed'])
  })

  test('give a race to the same winner', async () => {
    const race: Run = async (ctx) => {
      const winner = await Promise.race([ctx.tool('a'), ctx.tool('b')])
      return ctx.step('winner', () => winner)
    }
    const original = await attempt(race, endingAs(['b', 'a']))
    expect(original.end).toMatchObject({ output: 'result of b' })
    const replay = await attempt(race, {}, original.envelope)
    expect(replay.end).toMatchObject({ type: 'run.completed', output: 'result of b' })
  })

  test('end where the crash was: what follows is made, and a call that had only begun is made again', async () => {
    const run: Run = async (ctx) => [await ctx.tool('a'), await ctx.tool('b'), await ctx.tool('c')]
    const calls: string[] = []
    const tool = (name: string) => () => calls.push(name)
    const tools = { a: tool('a'), b: tool('b'), c: tool('c') }
    const crashed = await attempt(run, tools, [], (message) => {
      return message.type === 'tool.started' && message.call.tool === 'b'
    })
    expect(calls).toEqual(['a'])
    expect(crashed.envelope.map(({ outcome }) => outcome)).toEqual(['succeeded', 'started'])

    const resumed = await attempt(run, tools, crashed.envelope)
    expect(calls).toEqual(['a', 'b', 'c'])
    expect(resumed.end).toMatchObject({ output: [1, 2, 3] })
  })

  test('that failed fail again, with the same words', async () => {
    const run: Run = async (ctx) => {
      try {
        return await ctx.tool('a')
      } catch (error) {
        return [error instanceof ToolError, error instanceof Error && error.message]
      }
    }
    const broken = () => {
      throw new Error('it is broken')
    }
    const original = await attempt(run, { a: broken })
    const replay = await attempt(run, {}, original.envelope)
    for (const { end } of [original, replay])
      expect(end).toMatchObject({ type: 'run.completed', output: [true, 'it is broken'] })
  })

  test('of time, chance and ids answer as they did', async () => {
    const run: Run = async (ctx) => [ctx.now(), ctx.random(), ctx.uuid(), ctx.uuid()]
    const original = await attempt(run)
    const replay = await attempt(run, {}, original.envelope)
    expect(replay.end).toEqual(original.end)
    expect(typesOf(replay)).toEqual(['run.completed'])
    const [now, , one, other] = (replay.end as { output: unknown[] }).output
    expect(Math.abs(Date.now() - Number(now))).toBeLessThan(60_000)
    expect(one).not.toBe(other)
  })
})

describe('code that asks for something else than it did', () => {
  test.each<[string, Run, RegExp]>([
    ['another kind', (ctx) => ctx.step('a', () => 1), /call 1 is step a now and was tool a/],
    ['another tool', (ctx) => ctx.tool('b'), /call 1 is tool b .*now and was tool a/],
    [
      'other arguments',
      (ctx) => ctx.tool('a', { q: 2 }),
      /tool a \(arguments \w+\) now and was tool a \(arguments \w+\)/,
    ],
  ])('ends with nondeterministic_replay, naming both: %s', async (_what, other, message) => {
    const original = await attempt((ctx) => ctx.tool('a', { q: 1 }), { a: () => 1 })
    const replay = await attempt(other, {}, original.envelope)
    expect(replay.end).toMatchObject({ type: 'run.failed', code: 'nondeterministic_replay' })
    expect((replay.end as { message: string }).message).toMatch(message)
    expect(replay.messages).toHaveLength(1)
  })

  test('is told from the same arguments in another order', async () => {
    const original = await attempt((ctx) => ctx.tool('a', { x: 1, y: 2 }), { a: () => 'once' })
    const replay = await attempt((ctx) => ctx.tool('a', { y: 2, x: 1 }), {}, original.envelope)
    expect(replay.end).toMatchObject({ type: 'run.completed', output: 'once' })
  })
})

describe('saying', () => {
  const say: Run = (ctx) => ctx.say('aabbccdd', { chunks: 4 })
  const deltas = ({ messages }: Attempt): string[] =>
    messages.flatMap((message) =>
      message.type === 'progress.reported' ? [message.delta?.text ?? ''] : [],
    )

  test('goes on behind what was streamed before a crash', async () => {
    let said = 0
    const crashed = await attempt(say, {}, [], (message) => {
      said += message.type === 'progress.reported' ? 1 : 0
      return said === 2
    })
    const resumed = await attempt(say, {}, crashed.envelope)
    expect([deltas(crashed), deltas(resumed)]).toEqual([
      ['aa', 'bb'],
      ['cc', 'dd'],
    ])
    expect(resumed.messages.filter(({ type }) => type === 'call.recorded')).toHaveLength(1)
  })

  test('is not repeated once it is recorded', async () => {
    const original = await attempt(say)
    expect(typesOf(await attempt(say, {}, original.envelope))).toEqual(['run.completed'])
  })

  test('cuts no character in half', async () => {
    const text = '👍🏽é𝒳'
    const original = await attempt((ctx) => ctx.say(text, { chunks: 20 }))
    expect(deltas(original).join('')).toBe(text)
    expect(deltas(original).every((chunk) => chunk.isWellFormed())).toBe(true)
  })
})

describe('results', () => {
  const cycle: Record<string, unknown> = {}
  cycle['self'] = cycle
  const large = 'x'.repeat(1_000_001)

  test.each<[string, unknown, string]>([
    ['a BigInt', 1n, 'invalid_result'],
    ['a cycle', cycle, 'invalid_result'],
    ['a NUL', { text: 'a\0b' }, 'invalid_result'],
    ['a lone surrogate', ['\ud800'], 'invalid_result'],
    ['more than 1 MB', large, 'output_too_large'],
  ])('that cannot be recorded fail the run and say so: %s', async (_what, value, code) => {
    const outputs = await attempt(async () => value)
    expect(outputs.end).toMatchObject({ type: 'run.failed', code })
    const steps = await attempt((ctx) => ctx.step('a', () => value))
    expect(steps.end).toMatchObject({ type: 'run.failed', code })
    expect(typesOf(steps)).not.toContain('call.recorded')
  })

  test('are what JSON makes of them, in the first attempt as in the next', async () => {
    const value = {
      when: new Date(0),
      none: undefined,
      list: [undefined],
    }
    const run: Run = async (ctx) => ({ got: await ctx.step('a', () => value) })
    const original = await attempt(run)
    const output = { got: { when: '1970-01-01T00:00:00.000Z', list: [null] } }
    expect(original.end).toMatchObject({ output })
    expect((await attempt(run, {}, original.envelope)).end).toMatchObject({ output })
    expect((await attempt(async () => undefined)).end).toMatchObject({ output: null })
  })
})

test('two calls under one id end the run', async () => {
  const run: Run = async (ctx) => {
    await ctx.tool('a', null, { callId: 'same' })
    await ctx.tool('a', null, { callId: 'same' })
  }
  expect((await attempt(run, { a: () => 1 })).end).toMatchObject({ code: 'duplicate_tool_call_id' })
})

test('a cancel from before the start lets nothing of the agent run', async () => {
  const run = vi.fn<Run>()
  const control = new SessionControl()
  control.cancel()
  const messages: SessionMessage[] = []
  const port = {
    send: (m: SessionMessage) => messages.push(m),
    barrier: async () => {},
    beat: () => {},
  }
  const agent = { name: 'tested', run }
  await runSession(agent, jobOf([]), port as unknown as SessionPort, control, toolsOf(agent))
  expect(run).not.toHaveBeenCalled()
  expect(messages).toEqual([{ type: 'session.exited' }])
})
