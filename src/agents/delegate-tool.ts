import type { Json } from '../json.ts'
import { type AgentContext, DelegationCancelled, RunError, type ToolOffer } from './agent.ts'

/** What a model is told of the agents that it may give work to. */
export const delegateTool = (agents: readonly string[]): ToolOffer => ({
  name: 'delegate',
  description:
    'Gives a task to another agent and waits for what it says. It knows nothing of this conversation: put all that it needs into the message. Ask for several at once where they do not depend on each other.',
  input_schema: {
    type: 'object',
    properties: {
      agent: { type: 'string', enum: [...agents] },
      message: { type: 'string', minLength: 1 },
    },
    required: ['agent', 'message'],
    additionalProperties: false,
  },
})

/** A child that failed or was cancelled is no end of its parent: the model is told. */
export async function delegateByModel(
  ctx: AgentContext,
  agents: readonly string[],
  input: Json,
): Promise<{ type: 'json'; value: Json } | { type: 'error-text'; value: string }> {
  const { agent, message } = (input ?? {}) as { agent?: Json; message?: Json }
  if (typeof agent !== 'string' || !agents.includes(agent))
    return { type: 'error-text', value: `agent must be one of ${agents.join(', ')}` }
  if (typeof message !== 'string' || message === '')
    return { type: 'error-text', value: 'message must be text' }
  try {
    const { status, output, error_message } = await ctx.delegate(agent, { message })
    if (status === 'completed') return { type: 'json', value: output }
    return { type: 'error-text', value: error_message ?? `${agent} has ${status}` }
  } catch (error) {
    if (!(error instanceof DelegationCancelled) && !isRefused(error)) throw error
    return { type: 'error-text', value: error.message }
  }
}

const REFUSALS: ReadonlySet<string> = new Set([
  'lane_cycle',
  'delegation_too_deep',
  'too_many_children',
])

const isRefused = (error: unknown): error is RunError =>
  error instanceof RunError && REFUSALS.has(error.code)
