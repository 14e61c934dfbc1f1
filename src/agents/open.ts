import type { Agent } from './agent.ts'
import { assistantAgent } from './assistant.ts'
import type { SessionTools } from './context.ts'
import { openDeclared } from './declared.ts'
import type { McpConnections } from './mcp.ts'
import type { ModelFinder } from './model-call.ts'
import { importAgent } from './modules.ts'
import type { Outbound } from './outbound.ts'
import { scriptedAgent } from './scripted.ts'
import type { AgentSource } from './source.ts'
import { Toolbox } from './toolbox.ts'

export interface AgentOpeners {
  outbound: Outbound
  findModel: ModelFinder
  /** For agents that are code. */
  trusted: McpConnections
  /** For agents that were posted. */
  checked: McpConnections
}

/** The agent of a source, ready to run. @throws DefinitionError when its module is not as it should be */
export async function openAgent(
  source: AgentSource,
  { outbound, findModel, trusted, checked }: AgentOpeners,
): Promise<{ agent: Agent; tools: SessionTools }> {
  const agent = await agentOf(source, outbound)
  const connections = source.from === 'declared' ? checked : trusted
  return { agent, tools: { toolbox: new Toolbox(agent, connections), findModel } }
}

async function agentOf(source: AgentSource, outbound: Outbound): Promise<Agent> {
  if (source.from === 'module') return importAgent(source.file)
  if (source.from === 'declared') return openDeclared(source.definition, outbound)
  if (source.from === 'assistant') return assistantAgent(source.models)
  return scriptedAgent(outbound)
}
