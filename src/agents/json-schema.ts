import { Ajv, type AnySchema, type Options } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { RE2JS } from 're2js'
import type { JsonSchema } from './agent.ts'

/**
 * Patterns in linear time: with the engine of JavaScript `^(a+)+$` blocks its thread for minutes on thirty characters that
 * a model chose. Look-around and back references do not exist here.
 */
const linear = Object.assign(
  (pattern: string) => {
    const compiled = RE2JS.compile(RE2JS.translateRegExp(pattern))
    return { test: (text: string) => compiled.matcher(text).find() }
  },
  { code: 'linear' },
)

/** Lenient as models are told: an unknown keyword or format says nothing. */
const OPTIONS: Options = {
  strict: false,
  logger: false,
  validateFormats: false,
  // Both else nest the code of a schema as deep as it has properties: a thousand are too much for the stack.
  allErrors: true,
  code: { optimize: false, regExp: linear },
}

/** What is wrong with a value, in words; undefined when it fits. */
export type Check = (value: unknown) => string | undefined

/**
 * Compiles a JSON Schema: draft 2020-12, or draft 7 when its `$schema` says so.
 * @throws Error when it is not a schema, or refers to something outside itself
 */
export function compileSchema(schema: JsonSchema): Check {
  const { $schema, ...rest } = schema
  // Would make the check answer a promise, which looks like "fits".
  if ('$async' in rest) throw new Error('$async is not supported')
  const isOld = typeof $schema === 'string' && /draft-0[4-7]/.test($schema)
  const Draft = isOld ? Ajv : Ajv2020
  checkItself(Draft, rest as AnySchema)
  // One of its own: what a schema names by `$id` must not be seen by the next one.
  const validate = new Draft({ ...OPTIONS, meta: false, validateSchema: false }).compile(
    rest as AnySchema,
  )
  return (value) => {
    if (validate(value)) return undefined
    const [error] = validate.errors ?? []
    const path = (error?.instancePath ?? '').replaceAll('/', '.').slice(1)
    return `${path === '' ? 'it' : path} ${error?.message ?? 'does not fit'}`
  }
}

/** The rules for schemas themselves by draft, compiled once: that takes longer than most schemas do. */
const metas = new Map<typeof Ajv | typeof Ajv2020, Ajv | Ajv2020>()

function checkItself(Draft: typeof Ajv | typeof Ajv2020, schema: AnySchema): void {
  const meta = metas.get(Draft) ?? new Draft(OPTIONS)
  metas.set(Draft, meta)
  if (!meta.validateSchema(schema))
    throw new Error(`schema is invalid: ${meta.errorsText(meta.errors, { dataVar: 'schema' })}`)
}
