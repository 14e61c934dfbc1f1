import { Ajv, type AnySchema, type Options } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { JsonSchema } from './agent.ts'

/** Lenient as models are told: an unknown keyword or format says nothing. */
const OPTIONS: Options = { strict: false, allErrors: false, logger: false, validateFormats: false }

/** What is wrong with a value, in words; undefined when it fits. */
export type Check = (value: unknown) => string | undefined

/**
 * Compiles a JSON Schema: draft 2020-12, or draft 7 when its `$schema` says so.
 * @throws Error when it is not a schema, or refers to something outside itself
 */
export function compileSchema(schema: JsonSchema): Check {
  const { $schema, ...rest } = schema
  const isOld = typeof $schema === 'string' && /draft-0[4-7]/.test($schema)
  const validate = (isOld ? new Ajv(OPTIONS) : new Ajv2020(OPTIONS)).compile(rest as AnySchema)
  return (value) => {
    if (validate(value)) return undefined
    const [error] = validate.errors ?? []
    const path = (error?.instancePath ?? '').replaceAll('/', '.').slice(1)
    return `${path === '' ? 'it' : path} ${error?.message ?? 'does not fit'}`
  }
}
