/** What agents are written against. */
export type { Agent, AgentContext, StepScope, Tool, ToolScope } from './agents/agent.ts'
export { RunError, ToolError } from './agents/agent.ts'
export type { Json } from './json.ts'
export type { Effects } from './store/rows.ts'
