import { expect, test } from 'vitest'
import { attempt, type Run } from '../support/attempt.ts'

test('a failed step that the code goes on from is recorded, and fails again in a replay without being made', async () => {
  let made = 0
  const run: Run = async (ctx) => {
    const first = await ctx
      .step('first', () => {
        made += 1
        throw new Error('no luck')
      })
      .catch((error: unknown) => String(error))
    return { first, second: await ctx.step('second', () => 2) }
  }

  const before = await attempt(run, {}, [], ({ type }) => type === 'run.completed')
  const after = await attempt(run, {}, before.envelope)

  expect(made).toBe(1)
  expect(after.end).toMatchObject({
    type: 'run.completed',
    output: { first: expect.stringContaining('no luck') as string, second: 2 },
  })
})

test('a failed step that ends the run is left open: a resume makes it again', async () => {
  let made = 0
  const run: Run = async (ctx) =>
    ctx.step('only', () => {
      made += 1
      if (made === 1) throw new Error('no luck')
      return made
    })

  const failed = await attempt(run)
  expect(failed.end).toMatchObject({ type: 'run.failed', message: 'no luck' })
  expect(failed.envelope).toEqual([])

  const resumed = await attempt(run, {}, failed.envelope)
  expect(resumed.end).toMatchObject({ type: 'run.completed', output: 2 })
})
