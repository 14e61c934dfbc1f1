import type { Agent, AgentContext } from '../../src/agents/agent.ts'
import type { SessionTools } from '../../src/agents/context.ts'
import { SessionControl } from '../../src/agents/control.ts'
import { McpConnections } from '../../src/agents/mcp.ts'
import type { Job, SessionCall, SessionMessage, SessionPort } from '../../src/agents/port.ts'
import type { Json } from '../../src/json.ts'
import { runSession } from '../../src/agents/session.ts'
import { Toolbox } from '../../src/agents/toolbox.ts'
import { modelFinder } from '../../src/providers/models.ts'
import type { CallRow } from '../../src/store/rows.ts'

/** What a session tells, the start of a tool call included. */
export type Reported = SessionMessage | { type: 'tool.started'; call: SessionCall }

export type Run = (ctx: AgentContext) => Promise<unknown>
export type Tools = Record<string, (input: unknown) => unknown>

export interface Attempt {
  readonly messages: Reported[]
  /** The envelope that the next attempt finds: each call as it was reported last. */
  readonly envelope: CallRow[]
  readonly end: Reported | undefined
}

/**
 * Plays one attempt; `until` ends it as a crash does, at the first message that it holds for. `signals` are there before
 * they are asked for.
 */
export async function attempt(
  run: Run,
  tools: Tools = {},
  calls: CallRow[] = [],
  until: (message: Reported) => boolean = () => false,
  signals: Record<string, Json> = {},
): Promise<Attempt> {
  const agent: Agent = {
    name: 'tested',
    tools: (name) => ({ effects: 'idempotent', execute: (input) => tools[name]?.(input) }),
    run,
  }
  const messages: Reported[] = []
  const control = new SessionControl()
  const report = (message: Reported): void => {
    if (control.hard.signal.aborted) return
    messages.push(message)
    if (until(message)) control.kill()
  }
  const barrier = async (): Promise<void> => {
    await new Promise((resolve) => setImmediate(resolve))
    control.hard.signal.throwIfAborted()
  }
  const port: SessionPort = {
    begun: () => {},
    send: report,
    begin: async (call) => {
      report({ type: 'tool.started', call })
      await barrier()
      return true
    },
    delegate: () => Promise.reject(new Error('nothing is delegated here')),
    reportOf: () => Promise.reject(new Error('nothing is delegated here')),
    signalNamed: async (name) => ({ command_id: name, by: 'test', data: signals[name] ?? null }),
    park: () => Promise.reject(new Error('nothing is parked here')),
    barrier,
    clearance: barrier,
    beat: () => {},
  }
  await runSession(agent, jobOf(calls), port, control, toolsOf(agent))
  return { messages, envelope: envelopeOf(calls, messages), end: messages.at(-1) }
}

/** Without models and MCP servers. */
export const toolsOf = (agent: Agent): SessionTools => ({
  toolbox: new Toolbox(agent, new McpConnections({ version: 'test' })),
  findModel: modelFinder({}),
})

export const jobOf = (calls: CallRow[]): Job => ({
  run_id: 'run_1',
  conversation_id: 'c1',
  agent: 'tested',
  attempt: 1,
  input: null,
  lanes: ['conversation:c1'],
  calls,
})

function envelopeOf(before: CallRow[], messages: Reported[]): CallRow[] {
  const rows = new Map(before.map((row) => [row.tool_call_id, row]))
  for (const message of messages) {
    const call = 'call' in message ? message.call : undefined
    if (!call) continue
    const times = { started_at: null, finished_at: null }
    const row = { ...call, ...times, run_id: 'run_1', attempt: 1 }
    rows.set(call.tool_call_id, JSON.parse(JSON.stringify(row)) as CallRow)
  }
  return [...rows.values()].toSorted((a, b) => a.position - b.position)
}
