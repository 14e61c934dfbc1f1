import { expect, onTestFinished, test } from 'vitest'
import { declaredAgent, declaredProblems } from '../../src/agents/declared.ts'
import { Outbound } from '../../src/agents/outbound.ts'

test('checking many schemas leaves a turn for others after each, since leases are renewed beside it', async () => {
  const outbound = new Outbound([])
  onTestFinished(() => outbound.close())
  const agent = declaredAgent.parse({
    name: 'many',
    models: ['openai:a'],
    tools: Array.from({ length: 20 }, (_, nth) => ({
      name: `t${nth}`,
      description: '',
      input_schema: { type: 'object' },
      url: 'https://example.com/',
    })),
  })
  let turns = 0
  let over = false
  const count = (): void => {
    turns += 1
    if (!over) setImmediate(count)
  }
  setImmediate(count)

  expect(await declaredProblems(agent, outbound)).toEqual([])
  over = true
  expect(turns).toBeGreaterThanOrEqual(20)
})
