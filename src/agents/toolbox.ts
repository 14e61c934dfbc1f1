import { type Agent, RunError, type Tool, type ToolOffer } from './agent.ts'
import type { McpConnections } from './mcp.ts'

/** The tools of one agent: its own and those of its MCP servers, which are asked only when somebody needs them. */
export class Toolbox {
  #agent: Agent
  #connections: McpConnections

  constructor(agent: Agent, connections: McpConnections) {
    this.#agent = agent
    this.#connections = connections
  }

  /** @throws RunError `mcp_unavailable`, `tool_name_conflict` */
  async find(name: string, signal: AbortSignal): Promise<Tool<never> | undefined> {
    const { tools, mcp } = this.#agent
    const own = typeof tools === 'function' ? tools(name) : ownProperty(tools, name)
    if (own || !mcp || mcp.length === 0) return own
    return (await this.#remote(signal)).get(name)
  }

  /** What a model can be told of. @throws RunError `mcp_unavailable`, `tool_name_conflict` */
  async offers(signal: AbortSignal): Promise<ToolOffer[]> {
    const { tools } = this.#agent
    const own = typeof tools === 'function' ? [] : Object.entries(tools ?? {})
    const remote = await this.#remote(signal)
    return [...own, ...remote].map(([name, { description, input_schema }]) => ({
      name,
      description: description ?? '',
      input_schema: input_schema ?? { type: 'object' },
    }))
  }

  async #remote(signal: AbortSignal): Promise<Map<string, Tool<never>>> {
    const { tools, mcp = [] } = this.#agent
    const found = new Map<string, Tool<never>>()
    const lists = await Promise.all(mcp.map((server) => this.#connections.tools(server, signal)))
    for (const [name, tool] of lists.flat()) {
      const isOwn = typeof tools !== 'function' && ownProperty(tools, name) !== undefined
      if (isOwn || found.has(name)) {
        throw new RunError(
          'tool_name_conflict',
          `two tools of the agent ${this.#agent.name} are named ${name}: give an MCP server a prefix`,
        )
      }
      found.set(name, tool)
    }
    return found
  }
}

const ownProperty = (
  tools: Record<string, Tool<never>> | undefined,
  name: string,
): Tool<never> | undefined => (tools && Object.hasOwn(tools, name) ? tools[name] : undefined)
