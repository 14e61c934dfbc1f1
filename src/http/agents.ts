import { Hono } from 'hono'
import {
  type DeclaredAgent,
  declaredAgent,
  declaredCard,
  declaredProblems,
} from '../agents/declared.ts'
import { BUILT_IN_NAMES } from '../agents/define.ts'
import type { AgentCard } from '../agents/source.ts'
import { Refusal } from '../errors.ts'
import { newRecordId } from '../ids.ts'
import type { Json } from '../json.ts'
import type { Caller } from '../runtime/commands.ts'
import {
  countActive,
  DECLARED_MAX,
  deleteDeclared,
  findDeclared,
  recordAudit,
  saveDeclared,
} from '../store/agents.ts'
import type { AuditDraft } from '../store/flush.ts'
import { callerOf } from './auth.ts'
import { invalid, readBody } from './body.ts'
import type { Service } from './service.ts'

/** The agents that runs can name, and declaring some over HTTP. */
export function agentRoutes({ agents, reads, outbound, bodyLimitBytes }: Service): Hono {
  const app = new Hono()

  app.get('/agents', async (c) => {
    const active = await countActive(reads)
    const cards = await agents.list()
    const problems = agents.problems.map(({ file, message }) => ({
      file: file.split(/[\\/]/).at(-1),
      message,
    }))
    return c.json({
      agents: cards.map((card) => agentRow(card, active.get(card.name) ?? 0)),
      problems,
      next_cursor: null,
    })
  })

  app.get('/agents/:name', async (c) => {
    const card = await existing(c.req.param('name'))
    const active = await countActive(reads)
    const row = agentRow(card, active.get(card.name) ?? 0)
    if (card.source.from !== 'declared') return c.json({ ...row, ...detailsOf(card) })
    const definition = withoutHeaderValues(card.source.definition as unknown as DeclaredAgent)
    return c.json({ ...row, ...detailsOf(card), definition })
  })

  app.post('/agents', async (c) => {
    const agent = await readBody(c, declaredAgent, bodyLimitBytes)
    const problems = await declaredProblems(agent, outbound)
    if (problems.length > 0) throw invalid(problems)
    const caller = callerOf(c)
    if (BUILT_IN_NAMES.includes(agent.name) || agents.findLocal(agent.name)) {
      await recordAudit(reads, refused(caller, 'agent.declare', agent.name, 'agent_exists'))
      throw new Refusal('agent_exists', `${agent.name} is a built-in agent or code of this service`)
    }
    const definition = agent as unknown as Json
    const saved = await saveDeclared(
      reads,
      { name: agent.name, definition, declared_by: caller.name },
      auditOf(caller, 'agent.declare', agent.name),
    )
    if (saved === 'full') {
      await recordAudit(reads, refused(caller, 'agent.declare', agent.name, 'too_many_agents'))
      throw new Refusal('too_many_agents', `there are ${DECLARED_MAX} declared agents already`)
    }
    const card = declaredCard(definition, outbound)
    const active = await countActive(reads)
    c.header('Location', `/agents/${encodeURIComponent(agent.name)}`)
    return c.json(
      {
        ...agentRow(card, active.get(agent.name) ?? 0),
        ...detailsOf(card),
        definition: withoutHeaderValues(agent),
      },
      saved === 'created' ? 201 : 200,
    )
  })

  app.delete('/agents/:name', async (c) => {
    const name = c.req.param('name')
    const caller = callerOf(c)
    if (agents.findLocal(name) && !(await findDeclared(reads, name))) {
      await recordAudit(reads, refused(caller, 'agent.delete', name, 'agent_exists'))
      throw new Refusal(
        'agent_exists',
        `${name} is not a declared agent: it cannot be deleted here`,
      )
    }
    const deleted = await deleteDeclared(reads, name, auditOf(caller, 'agent.delete', name))
    if (!deleted) throw unknownAgent(name)
    return c.body(null, 204)
  })

  async function existing(name: string): Promise<AgentCard> {
    const card = await agents.find(name)
    if (!card) throw unknownAgent(name)
    return card
  }

  return app
}

const unknownAgent = (name: string): Refusal =>
  new Refusal('not_found', `there is no agent ${name.slice(0, 200)}`)

/** One agent as lists have it. The first model is called; nothing fails over or pauses in this version. */
function agentRow(card: AgentCard, active_runs: number) {
  const [model = null] = card.models
  return {
    name: card.name,
    kind: card.kind,
    description: card.description,
    models: card.models,
    current_tier: model === null ? null : 1,
    model,
    paused: false,
    last_failover_at: null,
    last_failure_kind: null,
    retry_at: null,
    active_runs,
  }
}

function detailsOf({
  tools,
  mcp,
  delegates,
  timeouts,
  isolation,
  hold_lane_on_human,
  takes,
}: AgentCard) {
  return { tools, mcp, delegates, timeouts, isolation, hold_lane_on_human, takes }
}

/** Headers carry keys: they are stored to be sent, and never shown again. */
function withoutHeaderValues(agent: DeclaredAgent) {
  const hidden = <T extends { headers?: Record<string, string> | undefined }>(one: T) => ({
    ...one,
    ...(one.headers === undefined
      ? {}
      : { headers: Object.fromEntries(Object.keys(one.headers).map((name) => [name, '•••'])) }),
  })
  return { ...agent, tools: agent.tools.map(hidden), mcp: agent.mcp.map(hidden) }
}

function auditOf({ name, role, requestId }: Caller, action: string, target: string): AuditDraft {
  return {
    audit_key: newRecordId(),
    actor: name,
    role,
    action,
    target,
    run_id: null,
    reason: null,
    outcome: 'applied',
    code: null,
    request_id: requestId,
  }
}

const refused = (caller: Caller, action: string, target: string, code: string): AuditDraft => ({
  ...auditOf(caller, action, target),
  outcome: 'refused',
  code,
})
