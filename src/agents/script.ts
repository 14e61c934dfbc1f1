import { z } from 'zod'
import type { FieldError } from '../errors.ts'
import { fitted } from '../field-errors.ts'
import type { Json } from '../json.ts'
import { nearest } from '../nearest.ts'
import type { Outbound } from './outbound.ts'
import { timeouts } from './timeouts.ts'

const STEPS_MAX = 10_000
const STEP_MS_MAX = 24 * 3_600_000

const ms = z.number().int().min(0).max(STEP_MS_MAX)
const name = z.string().min(1).max(255)
const json = z.custom<Json>(() => true)
const call = {
  effects: z.enum(['none', 'idempotent', 'unsafe']).optional(),
  call_id: name.optional(),
}

const tool = z.strictObject({
  tool: name,
  ms: ms.optional(),
  result: json.optional(),
  fail: z.string().optional(),
  hang: z.boolean().optional(),
  ...call,
})
const http = z.strictObject({ http: z.string().max(2048), body: json.optional(), ...call })
const toolStep = z.union([tool, http])
const delegate = z.strictObject({
  agent: name,
  input: json.optional(),
  namespace: z.string().min(1).max(100).optional(),
  detach: z.boolean().optional(),
  on_cancelled: z.enum(['continue', 'fail', 'retry']).optional(),
  timeouts: timeouts.optional(),
})

/** The steps by the field that names their kind. */
const KINDS = {
  think: z.strictObject({ think: ms }),
  say: z.strictObject({
    say: z.string(),
    chunks: z.number().int().min(1).max(10_000).optional(),
    ms: ms.optional(),
  }),
  tool,
  http,
  parallel: z.strictObject({ parallel: z.array(toolStep).min(1).max(1000) }),
  delegate: z.strictObject({ delegate }),
  delegate_all: z.strictObject({ delegate_all: z.array(delegate).min(1).max(100) }),
  journal: z.strictObject({ journal: z.record(z.string(), json) }),
  step: z.strictObject({ step: name, ms: ms.optional(), result: json.optional() }),
  spin: z.strictObject({ spin: ms }),
  fail: z.strictObject({ fail: z.string() }),
  return: z.strictObject({ return: json }),
} as const

/** What the ids look like that calls get by themselves. */
const OWN_CALL_ID = /^(tool|step|value|say|journal|delegate)_\d+$/

/** Part of the contract, but not of this version. */
const COMING = ['model', 'ask', 'waitpoint', 'wait']

export type ToolStep = z.infer<typeof tool> | z.infer<typeof http>
export type DelegateStep = z.infer<typeof delegate>
export type ScriptStep = {
  [K in keyof typeof KINDS]: z.infer<(typeof KINDS)[K]>
}[keyof typeof KINDS]
export interface Script {
  steps: ScriptStep[]
}

/** `scripted:<anything>` is the scripted agent under another name. */
export const isScripted = (agent: string): boolean => /^scripted(:.+)?$/.test(agent)

/** What does not fit in a scripted input, with the path of each finding; stops at the first 20. */
export function scriptProblems(input: unknown, outbound: Outbound, at = 'input'): FieldError[] {
  const script = input as { steps?: unknown; vars?: unknown }
  if (!isObject(script)) {
    return [{ path: at, message: 'must be an object with "steps"' }]
  }
  const problems: FieldError[] = []
  for (const field of Object.keys(script)) {
    if (field === 'steps' || field === 'vars') continue
    problems.push({
      path: `${at}.${field}`,
      message: `is an unknown field${hint(field, ['steps', 'vars'])}`,
    })
  }
  if (script.vars !== undefined && !isObject(script.vars))
    problems.push({ path: `${at}.vars`, message: 'must be an object' })
  if (!Array.isArray(script.steps))
    return [...problems, { path: `${at}.steps`, message: 'must be an array of steps' }]
  if (script.steps.length > STEPS_MAX) {
    return [...problems, { path: `${at}.steps`, message: `has more than ${STEPS_MAX} steps` }]
  }
  const callIds = new Set<string>()
  for (const [index, step] of script.steps.entries()) {
    problems.push(...stepProblems(step, `${at}.steps[${index}]`, outbound, callIds))
    if (problems.length >= 20) break
  }
  return problems
}

/** A script that was validated when it was posted. */
export const parseScript = (input: Json): Script => input as unknown as Script

function stepProblems(
  step: unknown,
  path: string,
  outbound: Outbound,
  callIds: Set<string>,
): FieldError[] {
  if (typeof step !== 'object' || step === null || Array.isArray(step))
    return [{ path, message: 'must be an object' }]
  const fields = Object.keys(step)
  const coming = fields.find((field) => COMING.includes(field))
  if (coming)
    return [{ path: `${path}.${coming}`, message: 'is a step that this version does not support' }]
  // "fail" is also a field of a tool step, so the kinds are looked for in their order.
  const kind = (Object.keys(KINDS) as (keyof typeof KINDS)[]).find((known) =>
    fields.includes(known),
  )
  if (!kind) {
    const [first = ''] = fields
    return [{ path, message: `is no known step${hint(first, [...Object.keys(KINDS), ...COMING])}` }]
  }
  const parsed = fitted<z.ZodType>(KINDS[kind], step)
  if (parsed.errors) return parsed.errors.map((one) => ({ ...one, path: joined(path, one.path) }))
  const data = parsed.data as object
  if ('delegate' in data)
    return childProblems(data.delegate as DelegateStep, `${path}.delegate`, outbound)
  if ('delegate_all' in data)
    return (data.delegate_all as DelegateStep[]).flatMap((child, nth) =>
      childProblems(child, `${path}.delegate_all[${nth}]`, outbound),
    )
  if (!('parallel' in data)) return callProblems(data, path, outbound, callIds)
  return (data.parallel as ToolStep[]).flatMap((item, nth) =>
    callProblems(item, `${path}.parallel[${nth}]`, outbound, callIds),
  )
}

const childProblems = (
  { agent, input }: DelegateStep,
  path: string,
  outbound: Outbound,
): FieldError[] => (isScripted(agent) ? scriptProblems(input, outbound, `${path}.input`) : [])

function callProblems(
  item: object,
  path: string,
  outbound: Outbound,
  callIds: Set<string>,
): FieldError[] {
  const problems: FieldError[] = []
  if ('http' in item) {
    const refused = outbound.refusal(String(item.http))
    if (refused) problems.push({ path: `${path}.http`, message: refused })
  }
  if ('call_id' in item && typeof item.call_id === 'string') {
    if (OWN_CALL_ID.test(item.call_id)) {
      problems.push({
        path: `${path}.call_id`,
        message: 'has the form of an automatic id: choose another',
      })
    }
    if (callIds.has(item.call_id))
      problems.push({ path: `${path}.call_id`, message: 'is used by an earlier step' })
    callIds.add(item.call_id)
  }
  return problems
}

const joined = (path: string, inner: string): string =>
  inner === '' || inner.startsWith('[') ? path + inner : `${path}.${inner}`

function hint(word: string, known: string[]): string {
  const near = nearest(word, known)
  return near === undefined ? '' : `, did you mean "${near}"?`
}

const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
