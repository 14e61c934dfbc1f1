import { expect, test } from 'vitest'
import { attempt, type Reported, type Run } from '../support/attempt.ts'

test('a signal that is there by now does not overtake what was recorded before it', async () => {
  const run: Run = async (ctx) => {
    const before = ctx.signalNamed('before')
    const first = Promise.race([ctx.signalNamed('a'), ctx.signalNamed('b')])
    return [await before, await first, await ctx.step('then', () => 2)]
  }
  const readBy = (message: Reported, id: string) =>
    message.type === 'call.recorded' && message.call.tool_call_id === id
  const signals = { before: 1, a: 'a', b: 'b' }
  const killed = await attempt(run, {}, [], (message) => readBy(message, 'signal_2'), signals)
  expect(killed.envelope.map(({ tool_call_id }) => tool_call_id)).toEqual(['signal_1', 'signal_2'])

  const { end, messages } = await attempt(run, {}, killed.envelope, undefined, signals)

  expect(end).toMatchObject({ type: 'run.completed', output: [1, 'a', 2] })
  expect(messages.filter((message) => readBy(message, 'signal_3'))).toHaveLength(1)
})

test.each(['', 'a b', 'x'.repeat(65), 'ä', 7 as unknown as string])(
  'the name %j is refused, and nothing is recorded',
  async (name) => {
    const { end, envelope } = await attempt((ctx) => ctx.signalNamed(name))
    expect(end).toMatchObject({ type: 'run.failed', code: 'invalid_signal_name' })
    expect(envelope).toEqual([])
  },
)

test('no more than a hundred calls wait at the same time', async () => {
  const run: Run = (ctx) => Promise.all(Array.from({ length: 101 }, () => ctx.signalNamed('x')))
  const { end } = await attempt(run)
  expect(end).toMatchObject({ type: 'run.failed', code: 'too_many_signal_waits' })
})

test('code that asks for another signal than it did before fails with both names', async () => {
  const { envelope } = await attempt((ctx) => ctx.signalNamed('a'), {}, [], undefined, { a: 1 })
  const { end } = await attempt((ctx) => ctx.signalNamed('b'), {}, envelope)
  expect(end).toMatchObject({ type: 'run.failed', code: 'nondeterministic_replay' })
  expect(end).toMatchObject({ message: expect.stringMatching(/signal b now and was signal a/) })
})
