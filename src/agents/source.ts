import type { Json } from '../json.ts'
import type { AgentDefinition } from './define.ts'
import type { Timeouts } from './agent.ts'
import type { OnOrphan } from './on-orphan.ts'

/** Where the code of an agent comes from; plain JSON, so that a thread can open it. */
export type AgentSource =
  | { from: 'scripted' }
  | { from: 'assistant'; models: string[] }
  | { from: 'module'; file: string }
  | { from: 'declared'; definition: Json }

/** What the service knows of an agent without running any of its code. */
export interface AgentCard {
  name: string
  kind: 'built_in' | 'code' | 'declared'
  description: string | null
  /** As `provider:model`. */
  models: string[]
  tools: { name: string; description: string; effects: string; timeout_ms: number | null }[]
  /** Its MCP servers, by address or command. */
  mcp: string[]
  delegates: string[]
  timeouts: Timeouts
  isolation: 'shared' | 'thread'
  hold_lane_on_human: boolean
  on_orphan: OnOrphan
  /** What its input has to look like. */
  takes: 'anything' | 'messages' | 'script'
  source: AgentSource
}

export function cardOf(
  agent: AgentDefinition,
  kind: AgentCard['kind'],
  source: AgentSource,
): AgentCard {
  const tools = typeof agent.tools === 'function' ? [] : Object.entries(agent.tools ?? {})
  return {
    name: agent.name,
    kind,
    description: agent.description ?? null,
    models: (agent.models ?? []).map((model) =>
      typeof model === 'string' ? model : `${model.provider}:${model.modelId}`,
    ),
    tools: tools.map(([name, tool]) => ({
      name,
      description: tool.description ?? '',
      effects: typeof tool.effects === 'string' ? tool.effects : 'unsafe',
      timeout_ms: tool.timeout_ms ?? null,
    })),
    mcp: (agent.mcp ?? []).map(({ url, command }) => url ?? command ?? ''),
    delegates: [...agent.delegates],
    timeouts: agent.timeouts,
    isolation: agent.isolation,
    hold_lane_on_human: agent.hold_lane_on_human,
    on_orphan: agent.on_orphan,
    takes: agent.loops ? 'messages' : 'anything',
    source,
  }
}
