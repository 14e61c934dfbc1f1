import { z } from 'zod'
import { readDuration } from '../duration.ts'
import { type FieldError, messageOf } from '../errors.ts'
import { fitted, pathText } from '../field-errors.ts'
import { nearest } from '../nearest.ts'
import type { Effects } from '../store/rows.ts'
import type {
  Agent,
  AgentContext,
  JsonSchema,
  McpServer,
  ModelChoice,
  Timeouts,
  Tool,
  ToolScope,
} from './agent.ts'
import { builtInLoop, LOOP_TOOLS } from './loop.ts'
import { onOrphan, type OnOrphan } from './on-orphan.ts'
import { timeouts } from './timeouts.ts'

/** What an agent module hands to `defineAgent`. */
export interface AgentSpec {
  /** What runs name it by: letters, digits, `_`, `-`, `.`; at most 100 characters. */
  name: string
  description?: string
  /** The system prompt of its model calls. */
  instructions?: string
  /** `provider:model`, such as `openai:gpt-5.2`; the first one is called. */
  models?: readonly ModelChoice[]
  /** Made with `tool()`. */
  tools?: Record<string, Tool<never>>
  mcp?: readonly McpServer[]
  /** Agents that the model of the built-in loop may give work to, by a tool `delegate`. Code may delegate to any. */
  delegates?: readonly string[]
  timeouts?: Timeouts
  /** Model calls of one run of the built-in loop, default 100: one more fails it with `max_turns_exceeded`. */
  max_turns?: number
  /**
   * Where its runs execute: `shared` (default) in threads that several runs share, `thread` each in a thread of its own,
   * for code that may block, eat memory or call native code.
   */
  isolation?: 'shared' | 'thread'
  /** Keep the lane while a run is parked in `waiting_on_human`. Default false. */
  hold_lane_on_human?: boolean
  /**
   * What becomes of a run of a `chat` or `playground` that nobody has read for the grace of an orphan: `keep` (default) lets
   * it go on, `{ cancel_after: '10m' }` cancels it when it has been an orphan for so long.
   */
  on_orphan?: OnOrphan
  /** The agent as code. Without it the built-in loop runs: model call, tool batch, … until the model answers in words. */
  run?(ctx: AgentContext): Promise<unknown>
}

/** An agent that was checked. */
export interface AgentDefinition extends Agent {
  readonly [DEFINED]: true
  /** True when the built-in loop runs: the input is then `{ message }` or `{ messages }`. */
  readonly loops: boolean
  readonly timeouts: Timeouts
  readonly isolation: 'shared' | 'thread'
  readonly hold_lane_on_human: boolean
  readonly on_orphan: OnOrphan
  readonly delegates: readonly string[]
}

export interface ToolSpec<S extends z.ZodType> {
  description?: string
  /** Checked before `execute` is called; shown to models as JSON Schema. */
  input: S
  /**
   * What repeating the call does: `none` changes nothing outside, `idempotent` is safe under the same key, `unsafe`
   * (default) is never repeated without a human's word.
   */
  effects?: Effects
  /** Such as `"60s"`: then its signal is aborted and the call has failed. Default: none. */
  timeout?: string
  /** Not supported by this version: a tool that sets it is refused. */
  needs_approval?: boolean
  /** Answers JSON of at most 1 MB. */
  execute(input: z.output<S>, scope: ToolScope): unknown
}

/** An agent or a tool that is not written as it should be; the message names the field. */
export class DefinitionError extends Error {
  override readonly name = 'DefinitionError'
}

const DEFINED = Symbol.for('runlane.agent')
const TOOL = Symbol.for('runlane.tool')

/** Characters of an agent's name: it stands in URLs, lanes and span names. */
export const AGENT_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/
/** Belong to built-in agents, whether this node has them or not: another one may, or this one after its next start. */
export const BUILT_IN_NAMES: readonly string[] = ['scripted', 'assistant']
/** What every model provider takes for the name of a tool. */
export const TOOL_NAME = /^[A-Za-z0-9_-]{1,64}$/
export const MODEL_ID = /^[a-z][a-z0-9_-]*:\S+$/

const duration = z.string().transform((text, issues) => readDuration(text, issues))
const model = z.union([
  z.string().regex(MODEL_ID, 'must be provider:model, such as openai:gpt-5.2'),
  z.custom<ModelChoice>(
    (value) => typeof value === 'object' && value !== null && 'specificationVersion' in value,
    'must be provider:model or a model of the AI SDK',
  ),
])
const texts = z.record(z.string(), z.string())
const mcpServer = z
  .strictObject({
    url: z.url({ protocol: /^https?$/, error: 'must be an http or https URL' }).optional(),
    headers: texts.optional(),
    command: z.string().min(1).optional(),
    args: z.array(z.string()).optional(),
    env: texts.optional(),
    prefix: z.string().regex(TOOL_NAME, 'must be 1 to 64 letters, digits, _ or -').optional(),
    timeout: duration.optional(),
  })
  .refine(
    (server) => (server.url === undefined) !== (server.command === undefined),
    'needs either url or command',
  )

const spec = z.strictObject({
  name: z.string().regex(AGENT_NAME, 'must be 1 to 100 letters, digits, _ - or .'),
  description: z.string().optional(),
  instructions: z.string().optional(),
  models: z.array(model).optional(),
  tools: z.record(z.string(), z.custom<Tool<never>>(isTool, 'must be made with tool()')).optional(),
  mcp: z.array(mcpServer).optional(),
  delegates: z.array(z.string()).optional(),
  timeouts: timeouts.optional(),
  max_turns: z.number().int().min(1).max(10_000).optional(),
  isolation: z.enum(['shared', 'thread']).optional(),
  hold_lane_on_human: z.boolean().optional(),
  on_orphan: onOrphan.optional(),
  run: z
    .custom<AgentSpec['run']>((value) => typeof value === 'function', 'must be a function')
    .optional(),
})

/**
 * Checks an agent; the default export of an agent module.
 * @throws DefinitionError naming what does not fit
 */
export function defineAgent(given: AgentSpec): AgentDefinition {
  const agent = builtInAgent(given)
  if (BUILT_IN_NAMES.includes(agent.name))
    throw new DefinitionError(`agent ${agent.name}: the name belongs to a built-in agent`)
  return agent
}

/** The same for agents of the service itself, whose names are theirs. */
export function builtInAgent(given: AgentSpec): AgentDefinition {
  const { errors } = fitted(spec, given)
  const called = typeof given?.name === 'string' ? `agent ${given.name}` : 'an agent'
  if (errors) throw new DefinitionError(`${called}: ${inOneLine(errors)}`)
  const refuse = (problem: string): never => {
    throw new DefinitionError(`${called}: ${problem}`)
  }
  for (const name of Object.keys(given.tools ?? {})) {
    if (!TOOL_NAME.test(name))
      refuse(`tools.${name} must be named with 1 to 64 letters, digits, _ or -`)
    if (given.run === undefined && LOOP_TOOLS.includes(name))
      refuse(`tools.${name} is a name of the built-in loop's own tools`)
  }
  if (given.run === undefined && (given.models ?? []).length === 0)
    refuse('needs models, or a run function')
  const run =
    given.run?.bind(given) ??
    builtInLoop({ max_turns: given.max_turns ?? 100, delegates: given.delegates ?? [] })
  return Object.freeze({
    ...given,
    run,
    [DEFINED]: true as const,
    loops: given.run === undefined,
    timeouts: given.timeouts ?? {},
    isolation: given.isolation ?? 'shared',
    hold_lane_on_human: given.hold_lane_on_human ?? false,
    on_orphan: given.on_orphan ?? 'keep',
    delegates: given.delegates ?? [],
  })
}

/**
 * A tool of an agent.
 * @throws DefinitionError naming what does not fit
 */
export function tool<S extends z.ZodType>(given: ToolSpec<S>): Tool<never> {
  const { input, effects, description, timeout, needs_approval } = given
  const refuse = (problem: string): never => {
    throw new DefinitionError(`a tool (${description ?? 'without description'}): ${problem}`)
  }
  for (const field of Object.keys(given).filter((key) => !TOOL_FIELDS.includes(key))) {
    const near = nearest(field, TOOL_FIELDS)
    refuse(`${field} is an unknown field${near === undefined ? '' : `, did you mean "${near}"?`}`)
  }
  if (needs_approval === true) {
    refuse('needs_approval is not supported by this version: nobody would be asked')
  }
  if (typeof given.execute !== 'function') refuse('execute must be a function')
  if (effects !== undefined && !['none', 'idempotent', 'unsafe'].includes(effects))
    refuse('effects must be none, idempotent or unsafe')
  const limit = timeout === undefined ? undefined : fitted(duration, timeout)
  if (limit?.errors) refuse(`timeout ${limit.errors[0]?.message}`)
  return markTool<unknown>({
    ...(description === undefined ? {} : { description }),
    input_schema: schemaOf(input, refuse),
    effects: effects ?? 'unsafe',
    ...(limit?.data === undefined ? {} : { timeout_ms: limit.data }),
    async execute(value, scope) {
      const parsed = await input.safeParseAsync(value)
      if (!parsed.success) throw new Error(`invalid input: ${inOneLine(asWritten(parsed.error))}`)
      return given.execute(parsed.data, scope)
    },
  })
}

/** What `defineAgent` takes for a tool. */
export const markTool = <Input>(made: Tool<Input>): Tool<never> =>
  Object.freeze({ ...made, [TOOL]: true })

export const isAgentDefinition = (value: unknown): value is AgentDefinition =>
  typeof value === 'object' && value !== null && DEFINED in value

const TOOL_FIELDS = ['description', 'input', 'effects', 'timeout', 'needs_approval', 'execute']

function isTool(value: unknown): boolean {
  return typeof value === 'object' && value !== null && TOOL in value
}

function schemaOf(input: z.ZodType, refuse: (problem: string) => never): JsonSchema {
  // Another copy of zod 4 is fine; what zod 3 and others make has no such inside.
  if (typeof input !== 'object' || input === null || !('_zod' in input))
    return refuse("input must be a zod schema (z of 'runlane')")
  try {
    return z.toJSONSchema(input, { io: 'input' }) as JsonSchema
  } catch (error) {
    return refuse(`input cannot be shown as JSON Schema: ${messageOf(error)}`)
  }
}

/** What the author of a tool's schema has zod say: whoever calls the tool reads it. */
const asWritten = ({ issues }: z.ZodError): FieldError[] =>
  issues.map(({ path, message }) => ({
    path: path.length === 0 ? '' : `${pathText(path)}:`,
    message,
  }))

/** The first three problems. */
const inOneLine = (errors: FieldError[]): string =>
  errors
    .slice(0, 3)
    .map(({ path, message }) => `${path} ${message}`.trim())
    .join('; ')
