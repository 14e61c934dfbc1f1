/** What agents are written against: `import { defineAgent, tool, z } from 'runlane'`. */
export { z } from 'zod'
export type {
  Agent,
  AgentContext,
  DelegateOptions,
  JsonSchema,
  McpServer,
  ModelChoice,
  ModelReply,
  ModelRequest,
  ModelToolCall,
  StepScope,
  Timeouts,
  Tool,
  ToolCallOptions,
  ToolOffer,
  ToolScope,
} from './agents/agent.ts'
export { DelegationCancelled, RunError, ToolError } from './agents/agent.ts'
export { defineAgent, DefinitionError, tool } from './agents/define.ts'
export type { AgentDefinition, AgentSpec, ToolSpec } from './agents/define.ts'
export type { ChildReport } from './agents/port.ts'
export type { Json } from './json.ts'
export type { Effects } from './store/rows.ts'
