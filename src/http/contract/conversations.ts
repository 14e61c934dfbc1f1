/** What a chat surface needs of its conversation. */
import { z } from 'zod'
import { endpoint } from './endpoint.ts'
import { reason, status, time } from './values.ts'

const text = z.string()
const line = text.nullable()

const handoff = z
  .object({
    label: text.meta({ description: '`Run failed`, `Run timed out` or `Run cancelled`' }),
    error_message: line,
    last_known_state: z.object({
      objective: line,
      current_state: line,
      blockers: line,
      next_action: line,
      findings: line,
    }),
    handoff_next_action: line,
    resume_available: z.boolean(),
  })
  .meta({ id: 'Handoff' })

export const agentStatus = z
  .object({
    conversation_id: text,
    run_id: text,
    agent: text,
    status,
    detail: line,
    stuck_reason: line,
    phase: line,
    saying: line,
    since: time,
    can_cancel: z.boolean().meta({
      description:
        'it goes on, and was not asked to cancel yet; whether the caller may ask it is another matter',
    }),
    resume_available: z.boolean(),
    handoff: handoff.nullable(),
  })
  .meta({ id: 'AgentStatus' })

const FRAGMENT = [
  {
    media: 'text/html',
    says: 'with `Accept: text/html`: a panel that htmx can poll, with its Cancel and Resume buttons; also for a conversation without a run',
  },
] as const

export const getAgentStatus = endpoint({
  id: 'getAgentStatus',
  method: 'GET',
  path: '/conversations/{id}/agent-status',
  tag: 'Conversations',
  role: 'viewer',
  does: 'the status of its active run, else the newest unfinished, else the newest; as JSON or, with `Accept: text/html`, as a fragment',
  answers: { 200: agentStatus },
  also: FRAGMENT,
})

export const cancelAgentRun = endpoint({
  id: 'cancelAgentRun',
  method: 'POST',
  path: '/conversations/{id}/agent-runs/cancel',
  tag: 'Conversations',
  role: 'service',
  own: true,
  audits: 'agent_runtime.cancel',
  does: 'cancels its active run; answers as `agent-status` does',
  keyed: true,
  body: z.strictObject({ reason }),
  answers: { 202: agentStatus },
  also: FRAGMENT,
  refuses: ['not_cancellable'],
})
