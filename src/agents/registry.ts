import type { Agent } from './agent.ts'
import type { Outbound } from './outbound.ts'
import { scriptedAgent } from './scripted.ts'

export interface AgentRegistry {
  find(name: string): Agent | undefined
  names(): string[]
}

/** The agents that this service knows. `scripted:<anything>` is the scripted agent under another name. */
export function createRegistry(outbound: Outbound): AgentRegistry {
  const scripted = scriptedAgent(outbound)
  const known = new Map<string, Agent>([[scripted.name, scripted]])
  return {
    find: (name) => known.get(name) ?? (/^scripted:.+/.test(name) ? scripted : undefined),
    names: () => [...known.keys()],
  }
}
