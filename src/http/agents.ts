import type { Hono } from 'hono'
import { type DeclaredAgent, declaredCard, declaredProblems } from '../agents/declared.ts'
import { BUILT_IN_NAMES } from '../agents/define.ts'
import type { AgentCard } from '../agents/source.ts'
import { Refusal } from '../errors.ts'
import { hashJson, type Json } from '../json.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import {
  countActive,
  DECLARED_MAX,
  deleteDeclared,
  findDeclared,
  saveDeclared,
} from '../store/agents.ts'
import { recordAudit } from '../store/audit.ts'
import type { RequestKey } from '../store/request-keys.ts'
import { applied, refused } from './audit.ts'
import { invalid } from './body.ts'
import * as contract from './contract/agents.ts'
import type { Answer } from './contract/endpoint.ts'
import { makingKey, onceDeleted, onceMade } from './idempotency.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** The agents that runs can name, and declaring some over HTTP. */
export function agentRoutes(app: Hono, service: Service): void {
  const { agents, reads, outbound } = service
  const routes = new Routes(app, service)

  routes.on(contract.listAgents, async () => {
    const active = await countActive(reads)
    const cards = await agents.list()
    const modules = agents.problems.map(({ file, message }) => ({
      file: file.split(/[\\/]/).at(-1) ?? file,
      message,
    }))
    const problems = [...modules, ...(await agents.declaredProblems())]
    const rows = cards.map((card) => agentRow(card, active.get(card.name) ?? 0))
    return answer(200, { agents: rows, problems, next_cursor: null })
  })

  routes.on(contract.getAgent, async ({ params: { name } }) => {
    const card = await agents.find(name)
    if (!card) throw unknownAgent(name)
    const row = agentRow(card, (await countActive(reads)).get(card.name) ?? 0)
    if (card.source.from !== 'declared') return answer(200, { ...row, ...detailsOf(card) })
    const definition = withoutHeaderValues(card.source.definition as unknown as DeclaredAgent)
    return answer(200, { ...row, ...detailsOf(card), definition })
  })

  routes.on(contract.declareAgent, ({ c, body: agent, caller }) => {
    const key = makingKey(c, caller, agent)
    const shown = async (
      status: 200 | 201,
      definition: Json,
      more: Record<string, string> = {},
    ) => {
      const card = declaredCard(definition, outbound)
      const row = agentRow(card, (await countActive(reads)).get(card.name) ?? 0)
      const hidden = withoutHeaderValues(definition as unknown as DeclaredAgent)
      const headers = { Location: `/agents/${encodeURIComponent(card.name)}`, ...more }
      return answer(status, { ...row, ...detailsOf(card), definition: hidden }, headers)
    }
    return onceMade<Answer<typeof contract.declareAgent>>(reads, key, {
      make: async () => {
        const saved = await save(agent, caller, key)
        if (saved === 'repeated') return saved
        return shown(saved === 'created' ? 201 : 200, agent as unknown as Json)
      },
      again: async (name) => {
        const row = await findDeclared(reads, name)
        if (!row) throw new Refusal('not_found', `the agent ${name} was deleted since`)
        return shown(200, row.definition, { 'Idempotent-Replayed': 'true' })
      },
    })
  })

  routes.on(contract.deleteAgent, ({ c, params: { name }, body, caller }) => {
    const key = makingKey(c, caller, body)
    const reason = body.reason ?? null
    const remove = async () => {
      if (agents.findLocal(name) && !(await findDeclared(reads, name))) {
        const row = refused(caller, 'agent.delete', name, 'agent_exists')
        await recordAudit(reads, { ...row, reason })
        const text = `${name} is not a declared agent: it cannot be deleted here`
        throw new Refusal('agent_exists', text)
      }
      const auditOf = (earlier: Json) => ({
        ...applied(caller, 'agent.delete', name, { before: audited(earlier), after: null }),
        reason,
      })
      return deleteDeclared(reads, name, auditOf, key)
    }
    return onceDeleted(reads, key, remove, () => unknownAgent(name))
  })

  /** @throws Refusal validation_error, agent_exists, too_many_agents */
  async function save(agent: DeclaredAgent, caller: Caller, key: RequestKey | undefined) {
    const { name } = agent
    const problems = await declaredProblems(agent, outbound)
    if (problems.length > 0) throw invalid(problems)
    if (BUILT_IN_NAMES.includes(name) || agents.findLocal(name)) {
      await recordAudit(reads, refused(caller, 'agent.declare', name, 'agent_exists'))
      throw new Refusal('agent_exists', `${name} is a built-in agent or code of this service`)
    }
    const definition = agent as unknown as Json
    const saved = await saveDeclared(
      reads,
      { name, definition, declared_by: caller.name },
      (earlier) => {
        const change = { before: audited(earlier), after: audited(definition) }
        return applied(caller, 'agent.declare', name, change)
      },
      key,
    )
    if (saved !== 'full') return saved
    await recordAudit(reads, refused(caller, 'agent.declare', name, 'too_many_agents'))
    throw new Refusal('too_many_agents', `there are ${DECLARED_MAX} declared agents already`)
  }
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
  on_orphan,
  takes,
}: AgentCard) {
  return { tools, mcp, delegates, timeouts, isolation, hold_lane_on_human, on_orphan, takes }
}

/** What the audit trail shows of a declared agent; values of headers leave no trace in the hash. */
function audited(definition: Json): Json {
  if (definition === null) return null
  // A later version, which may have stored it, need not have these.
  const stored = { tools: [], mcp: [], ...(definition as object) } as unknown as DeclaredAgent
  return { definition_hash: hashJson(withoutHeaderValues(stored)) }
}

/** Headers carry keys: they are stored to be sent, and never shown again. */
function withoutHeaderValues(agent: DeclaredAgent): Record<string, Json> {
  const hidden = <T extends { headers?: Record<string, string> | undefined }>(one: T) => ({
    ...one,
    ...(one.headers === undefined
      ? {}
      : { headers: Object.fromEntries(Object.keys(one.headers).map((name) => [name, '•••'])) }),
  })
  const shown = { ...agent, tools: agent.tools.map(hidden), mcp: agent.mcp.map(hidden) }
  return shown as unknown as Record<string, Json>
}
