/** The agents that runs can name, and declaring some over HTTP. */
import { z } from 'zod'
import { declaredAgent } from '../../agents/declared.ts'
import { endpoint } from './endpoint.ts'
import { listOf } from './objects.ts'
import { jsonObject, reason, time } from './values.ts'

const text = z.string()

const row = {
  name: text,
  kind: text,
  description: text.nullable(),
  models: z.array(text),
  current_tier: z.number().int().nullable(),
  model: text.nullable(),
  paused: z.boolean(),
  last_failover_at: time.nullable(),
  last_failure_kind: text.nullable(),
  retry_at: time.nullable(),
  active_runs: z.number().int(),
}
const agentSummary = z.object(row).meta({ id: 'AgentSummary' })
const agent = z
  .looseObject({
    ...row,
    definition: jsonObject.optional().meta({ description: 'of a declared agent' }),
  })
  .meta({ id: 'Agent' })

export const listAgents = endpoint({
  id: 'listAgents',
  method: 'GET',
  path: '/agents',
  tag: 'Agents',
  role: 'viewer',
  does: 'the agents that runs can name; `problems`: modules and declarations that cannot be used, and why',
  answers: {
    200: listOf('agents', agentSummary).extend({
      problems: z.array(
        z.object({ file: text, message: text }).or(z.object({ name: text, message: text })),
      ),
    }),
  },
})

export const getAgent = endpoint({
  id: 'getAgent',
  method: 'GET',
  path: '/agents/{name}',
  tag: 'Agents',
  role: 'viewer',
  does: 'one agent with its tools; header values of a declared one are not shown',
  answers: { 200: agent },
})

export const declareAgent = endpoint({
  id: 'declareAgent',
  method: 'POST',
  path: '/agents',
  tag: 'Agents',
  role: 'admin',
  audits: 'agent.declare',
  does: 'declares an agent as JSON, or replaces the declared one of that name: 201 or 200; with an `Idempotency-Key` seen before 200 and the agent as it is by now',
  keyed: true,
  body: declaredAgent,
  answers: { 201: agent, 200: agent },
  headers: { Location: 'the path of the agent' },
  refuses: ['agent_exists', 'too_many_agents'],
})

export const deleteAgent = endpoint({
  id: 'deleteAgent',
  method: 'DELETE',
  path: '/agents/{name}',
  tag: 'Agents',
  role: 'admin',
  audits: 'agent.delete',
  does: 'forgets a declared agent; runs of it that have not begun will fail with `unknown_agent`',
  keyed: true,
  body: z.strictObject({ reason }),
  answers: { 204: null },
  refuses: ['agent_exists'],
})
