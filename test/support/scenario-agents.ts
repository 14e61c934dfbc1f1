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

const thinking = (ms: number) => ({ steps: [{ think: ms }, { return: ms }] })
const CALLS: NonNullable<Agent['tools']> = {
  wait: {
    effects: 'none',
    execute: async (ms: number, { signal }) => {
      await delay(ms, undefined, { signal })
      return ms
    },
  },
}

/** Its tool call and its child go on at the same time; the input says how long each of them takes. */
export const TOGETHER: Agent = {
  name: 'together',
  tools: CALLS,
  async run(ctx) {
    const { tool, child } = ctx.input as { tool: number; child: number }
    const called = ctx.tool('wait', tool)
    await delay(100)
    return Promise.all([called, ctx.delegate('scripted', thinking(child))])
  },
}

/** One call of it takes its time, and ten others go on beside it, one after the other. */
const ONE_HANGS: Agent = {
  name: 'one_hangs',
  tools: CALLS,
  async run(ctx) {
    const { hang, beside } = ctx.input as { hang: number; beside: number }
    const others = async (): Promise<void> => {
      for (let nth = 0; nth < 10; nth += 1) await ctx.tool('wait', beside)
    }
    return Promise.all([ctx.tool('wait', hang, { callId: 'hang' }), others()])
  },
}

/** Works while it waits for its child. */
export const BUSY_PARENT: Agent = {
  name: 'busy_parent',
  tools: CALLS,
  async run(ctx) {
    const child = ctx.delegate('scripted', thinking(400))
    await delay(100)
    await ctx.say('and words', { chunks: 2 })
    await ctx.step('beside', () => 1)
    await ctx.tool('wait', 1)
    return child
  },
}

/** Does not wait for its child. */
export const HASTY: Agent = {
  name: 'hasty',
  async run(ctx) {
    void ctx.delegate('scripted', thinking(60_000))
    await delay(100)
    return 'without it'
  },
}

export const SCENARIO_AGENTS: readonly Agent[] = [
  STUBBORN,
  BESIDE,
  TOGETHER,
  ONE_HANGS,
  BUSY_PARENT,
  HASTY,
]
