import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import type { Json } from '../json.ts'
import {
  type Agent,
  type AgentContext,
  type DelegateOptions,
  DelegationCancelled,
  RunError,
  type Tool,
} from './agent.ts'
import type { Outbound } from './outbound.ts'
import type { AgentCard } from './source.ts'
import type { ChildReport } from './port.ts'
import {
  type DelegateStep,
  parseScript,
  type Script,
  type ScriptStep,
  type ToolStep,
} from './script.ts'

/**
 * The agent whose input is its script. It needs no model key, so demos, load tests, deployment checks and black-box
 * tests use it. It is written on the public `ctx`, like any agent. Output: `{ results: [one per step] }`, unless a
 * `return` step gives another.
 */
export function scriptedAgent(outbound: Outbound): Agent {
  const tools = toolsOf(outbound)
  return {
    name: 'scripted',
    tools: (name) => (name === 'http' ? tools.http : tools.simulated),
    async run(ctx) {
      const script = parseScript(ctx.input)
      return perform(ctx, script)
    },
  }
}

/** How often a step delegates anew after a cancel. */
const RETRIES_MAX = 10

/** True when a step of this script may block its thread, so that it needs one of its own. */
export const scriptBlocks = (input: Json): boolean =>
  parseScript(input).steps.some((step) => 'spin' in step)

export const SCRIPTED_CARD: AgentCard = {
  name: 'scripted',
  kind: 'built_in',
  description: 'Its input is its script: for demos, load tests and deployment checks.',
  models: [],
  tools: [],
  mcp: [],
  delegates: [],
  timeouts: {},
  on_orphan: 'keep',
  isolation: 'shared',
  hold_lane_on_human: false,
  takes: 'script',
  source: { from: 'scripted' },
}

async function perform(ctx: AgentContext, script: Script): Promise<unknown> {
  const results: unknown[] = []
  for (const step of script.steps) {
    if ('return' in step) return step.return
    if ('fail' in step && !('tool' in step)) throw new RunError('agent_error', step.fail)
    results.push(await performStep(ctx, step))
  }
  return { results }
}

async function performStep(ctx: AgentContext, step: ScriptStep): Promise<unknown> {
  if ('think' in step) return think(ctx, step.think)
  if ('say' in step) {
    const { chunks, ms } = step
    await ctx.say(step.say, {
      ...(chunks === undefined ? {} : { chunks }),
      ...(ms === undefined ? {} : { ms }),
    })
    return step.say
  }
  if ('step' in step) {
    return ctx.step(step.step, async ({ signal }) => {
      if (step.ms) await delay(step.ms, undefined, { signal })
      return step.result ?? null
    })
  }
  if ('journal' in step) {
    await ctx.journal(step.journal)
    return step.journal
  }
  if ('spin' in step) return spin(ctx, step.spin)
  if ('parallel' in step) return parallel(ctx, step.parallel)
  if ('delegate' in step) return delegate(ctx, step.delegate)
  if ('delegate_all' in step) return together(step.delegate_all.map((one) => delegate(ctx, one)))
  if ('tool' in step || 'http' in step) return callTool(ctx, step)
  throw new RunError('agent_error', 'a step of an unknown kind')
}

async function think(ctx: AgentContext, ms: number): Promise<null> {
  await ctx.boundary()
  await delay(ms, undefined, { signal: ctx.signal })
  return null
}

/** What a careless agent does: nothing else in its thread moves meanwhile. */
async function spin(ctx: AgentContext, ms: number): Promise<null> {
  await ctx.boundary()
  const end = performance.now() + ms
  while (performance.now() < end);
  return null
}

/** All calls end before the first failure counts, so that each outcome is recorded. */
async function together<T>(calls: Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(calls)
  return outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason
    return outcome.value
  })
}

const parallel = (ctx: AgentContext, steps: ToolStep[]): Promise<Json[]> =>
  together(steps.map((step) => callTool(ctx, step)))

/** A child that somebody has cancelled: the step says whether that is a result, a failure, or to be tried anew. */
async function delegate(ctx: AgentContext, step: DelegateStep): Promise<ChildReport> {
  const { agent, input = null, on_cancelled = 'continue', ...options } = step
  for (let retries = 0; ; retries += 1) {
    try {
      return await ctx.delegate(agent, input, options as DelegateOptions)
    } catch (error) {
      if (!(error instanceof DelegationCancelled) || on_cancelled === 'fail') throw error
      if (on_cancelled === 'continue' || retries === RETRIES_MAX) return error.report
    }
  }
}

function callTool(ctx: AgentContext, step: ToolStep): Promise<Json> {
  const name = 'http' in step ? 'http' : step.tool
  const options = step.call_id === undefined ? {} : { callId: step.call_id }
  return ctx.tool(name, step as unknown as Json, options)
}

function toolsOf(outbound: Outbound): { simulated: Tool<never>; http: Tool<never> } {
  const effects = (step: ToolStep) => step.effects ?? 'unsafe'
  const simulated: Tool<Extract<ToolStep, { tool: string }>> = {
    effects,
    async execute(step, { signal }) {
      if (step.hang) {
        await once(signal, 'abort')
        signal.throwIfAborted()
      }
      await delay(step.ms ?? 0, undefined, { signal })
      if (step.fail !== undefined) throw new Error(step.fail)
      return step.result ?? null
    },
  }
  const http: Tool<Extract<ToolStep, { http: string }>> = {
    effects,
    execute: (step, { signal, idempotencyKey }) =>
      outbound.post(step.http, step.body ?? null, {
        headers: { 'idempotency-key': idempotencyKey },
        signal,
      }),
  }
  return { simulated: simulated, http: http }
}
