import { setImmediate as turn } from 'node:timers/promises'
import { z } from 'zod'
import { parseDuration } from '../duration.ts'
import { type FieldError, messageOf } from '../errors.ts'
import { fitted } from '../field-errors.ts'
import type { Json } from '../json.ts'
import type { JsonSchema, Tool } from './agent.ts'
import {
  AGENT_NAME,
  type AgentDefinition,
  builtInAgent,
  markTool,
  MODEL_ID,
  TOOL_NAME,
} from './define.ts'
import { compileSchema } from './json-schema.ts'
import { LOOP_TOOLS } from './loop.ts'
import type { Outbound } from './outbound.ts'
import { type AgentCard, cardOf } from './source.ts'
import { onOrphan } from './on-orphan.ts'
import { duration, timeouts } from './timeouts.ts'

const TOOLS_MAX = 128
const SERVERS_MAX = 16
const TEXT_MAX = 100_000

/** Set by us, or by the connection. */
const OWN_HEADERS = [
  'host',
  'content-length',
  'content-type',
  'transfer-encoding',
  'connection',
  'keep-alive',
  'upgrade',
  'expect',
  'idempotency-key',
]
const headers = z
  .record(
    z.string().regex(/^[\w!#$%&'*+.^`|~-]{1,100}$/, 'is not the name of a header'),
    z
      .string()
      .max(8_000)
      .regex(/^[\t\x20-\x7e\x80-\xff]*$/, 'is not the value of a header'),
  )
  .refine(
    (given) => !Object.keys(given).some((name) => OWN_HEADERS.includes(name.toLowerCase())),
    `must not set ${OWN_HEADERS.join(', ')}`,
  )
const url = z.string().max(2048)
const tool = z.strictObject({
  name: z.string().regex(TOOL_NAME, 'must be 1 to 64 letters, digits, _ or -'),
  description: z.string().max(TEXT_MAX),
  input_schema: z.custom<JsonSchema>(
    (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
    'must be a JSON Schema',
  ),
  url,
  headers: headers.optional(),
  effects: z.enum(['none', 'idempotent', 'unsafe']).default('unsafe'),
  timeout: duration.default('60s'),
  needs_approval: z
    .literal(false, 'must be false: in this version nobody would be asked')
    .optional(),
})
const noBudget = z
  .strictObject({}, 'is not supported by this version: leave the budget out or empty')
  .optional()

/** The body of POST /agents. */
export const declaredAgent = z.strictObject({
  name: z.string().regex(AGENT_NAME, 'must be 1 to 100 letters, digits, _ - or .'),
  description: z.string().max(TEXT_MAX).optional(),
  instructions: z.string().max(TEXT_MAX).default(''),
  models: z
    .array(z.string().max(255).regex(MODEL_ID, 'must be provider:model, such as openai:gpt-5.2'))
    .min(1)
    .max(10),
  tools: z.array(tool).max(TOOLS_MAX).default([]),
  mcp: z
    .array(z.strictObject({ url, headers: headers.optional() }))
    .max(SERVERS_MAX)
    .default([]),
  delegates: z.array(z.string().max(255)).max(100).default([]),
  timeouts: timeouts.default({}),
  on_orphan: onOrphan.optional(),
  max_turns: z.number().int().min(1).max(10_000).default(100),
  budget: noBudget,
})
export type DeclaredAgent = z.output<typeof declaredAgent>

/** What zod cannot say: addresses that may not be reached, schemas that are none, names used twice. */
export async function declaredProblems(
  agent: DeclaredAgent,
  outbound: Outbound,
): Promise<FieldError[]> {
  const problems: FieldError[] = []
  const names = new Set<string>()
  for (const [index, { name, url: address, input_schema }] of agent.tools.entries()) {
    const path = `tools[${index}]`
    if (names.has(name))
      problems.push({ path: `${path}.name`, message: 'is used by an earlier tool' })
    if (LOOP_TOOLS.includes(name))
      problems.push({ path: `${path}.name`, message: "is a name of the loop's own tools" })
    names.add(name)
    const refused = outbound.refusal(address)
    if (refused) problems.push({ path: `${path}.url`, message: refused })
    // Large schemas take long to compile, and leases are renewed by this very thread.
    await turn()
    const unfit = schemaProblem(input_schema)
    if (unfit) problems.push({ path: `${path}.input_schema`, message: unfit })
  }
  for (const [index, server] of agent.mcp.entries()) {
    const refused = outbound.refusal(server.url)
    if (refused) problems.push({ path: `mcp[${index}].url`, message: refused })
  }
  return problems
}

/** @throws when this version cannot read it: a later one has written it */
export const declaredCard = (definition: Json, outbound: Outbound): AgentCard =>
  cardOf(openDeclared(definition, outbound), 'declared', { from: 'declared', definition })

/** A stored declaration, whoever stored it. */
export function declaredOf(
  { name, definition }: { name: string; definition: Json },
  outbound: Outbound,
): { card: AgentCard } | { name: string; problem: string } {
  try {
    return { card: declaredCard(definition, outbound) }
  } catch (error) {
    return { name, problem: `this version cannot read its declaration: ${messageOf(error)}` }
  }
}

/** The agent of a stored declaration. @throws as `declaredCard` */
export function openDeclared(definition: Json, outbound: Outbound): AgentDefinition {
  const read = fitted(declaredAgent, definition)
  if (read.errors)
    throw new TypeError(read.errors.map(({ path, message }) => `${path} ${message}`).join('; '))
  const { tools, budget: _budget, ...agent } = read.data
  return builtInAgent({
    ...agent,
    tools: Object.fromEntries(tools.map((one) => [one.name, httpTool(one, outbound)])),
  } as Parameters<typeof builtInAgent>[0])
}

/** A POST of the arguments; its JSON answer is the result, any status over 299 an error. */
function httpTool(declared: DeclaredAgent['tools'][number], outbound: Outbound): Tool<never> {
  const { description, input_schema, url: address, effects, timeout } = declared
  let check: ReturnType<typeof compileSchema> | undefined
  const made: Tool = {
    description,
    input_schema,
    effects,
    timeout_ms: parseDuration(timeout),
    execute(input, { signal, idempotencyKey }) {
      check ??= compileSchema(input_schema)
      const unfit = check(input)
      if (unfit !== undefined) throw new Error(`invalid input: ${unfit}`)
      const sent = { ...declared.headers, 'idempotency-key': idempotencyKey }
      return outbound.post(address, input, { headers: sent, signal })
    },
  }
  return markTool(made)
}

function schemaProblem(schema: JsonSchema): string | undefined {
  if (schema['type'] !== 'object') return 'must be of type object'
  if (JSON.stringify(schema).length > TEXT_MAX) return `is larger than ${TEXT_MAX} characters`
  try {
    compileSchema(schema)
    return undefined
  } catch (error) {
    return `is not a usable JSON Schema: ${messageOf(error)}`
  }
}
