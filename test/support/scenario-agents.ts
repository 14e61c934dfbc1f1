import { setTimeout as delay } from 'node:timers/promises'
import type { Agent } from '../../src/agents/agent.ts'

/** Its one step does not look at its signal. */
export const STUBBORN: Agent = {
  name: 'stubborn',
  async run(ctx) {
    const deaf = ctx.step('deaf', async () => {
      await delay(600)
      return 'heard nothing'
    })
    await ctx.say('I have begun')
    return deaf
  },
}

const begun = new Map<string, () => void>()
const released = new Map<string, Promise<void>>()

/** It works beside its own tool call, which ends when that work is done. */
export const BESIDE: Agent = {
  name: 'beside',
  tools: {
    slow: {
      effects: 'none',
      execute: async (runId: string) => {
        begun.get(runId)?.()
        await released.get(runId)
        return null
      },
    },
  } as NonNullable<Agent['tools']>,
  async run(ctx) {
    const start = Promise.withResolvers<void>()
    const end = Promise.withResolvers<void>()
    begun.set(ctx.runId, start.resolve)
    released.set(ctx.runId, end.promise)
    const slow = ctx.tool('slow', ctx.runId)
    await start.promise
    await ctx.step('beside', () => 1)
    await ctx.say('and words', { chunks: 2 })
    end.resolve()
    await slow
    return 'both'
  },
}

export const SCENARIO_AGENTS: readonly Agent[] = [STUBBORN, BESIDE]
