import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import type { Json } from './api.ts'
import type { Answer, Contract, Route } from './contract.ts'

export type Judged = {
  readonly status: number
  readonly contentType: string
  readonly text: string
}

/** Says what an answer is that the service's own document does not promise; undefined: it fits. */
export type Judge = (answer: Judged, route: Route | undefined, method: string) => string | undefined

const DATE_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/

/** Judges answers by an OpenAPI document alone. Without a route: as one that is about nothing that is there. */
export const judgeOf = (contract: Contract): Judge => {
  // Strict: a keyword or a format that would not be checked is a mistake in the document.
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true })
  ajv.addFormat('date-time', {
    type: 'string',
    validate: (text: string) => DATE_TIME.test(text) && !Number.isNaN(Date.parse(text)),
  })
  const named = (schema: Json): Json =>
    JSON.parse(JSON.stringify(schema).replaceAll('"#/components/schemas/', '"contract#/$defs/'))
  ajv.addSchema({ $id: 'contract', $defs: named(contract.components.schemas) })

  const compiled = new Map<string, ValidateFunction>()
  const validatorOf = (schema: Json): ValidateFunction => {
    const text = JSON.stringify(schema)
    const known = compiled.get(text)
    if (known) return known
    const validate = ajv.compile(named(schema))
    compiled.set(text, validate)
    return validate
  }
  const unfit = (schema: Json, text: string): string | undefined => {
    const value: unknown = JSON.parse(text)
    const validate = validatorOf(schema)
    if (validate(value)) return undefined
    return `does not fit its schema: ${ajv.errorsText(validate.errors)}`
  }
  const problemSchema = { $ref: '#/components/schemas/Problem' }

  return ({ status, contentType, text }, route, method) => {
    const media = contentType.split(';')[0] ?? ''
    const promised: Answer | undefined = route?.operation.responses[status]
    if (!promised && !(status === 404 || (route === undefined && status < 500)))
      return `${status} is not promised`
    if (!promised && status < 400) return undefined
    const content = promised
      ? promised.content
      : { 'application/problem+json': problemOf(problemSchema) }
    // HEAD and 204 have no content, whatever type it would have.
    if (method === 'HEAD') return text === '' ? undefined : 'has a body'
    if (content === undefined) return text === '' ? undefined : 'has content, and none is promised'
    const schema = content[media]?.schema
    if (schema === undefined) return `${media || 'no type'} is not promised for ${status}`
    if (!/\bjson\b/.test(media)) return undefined
    const mismatch = unfit(schema, text)
    if (mismatch !== undefined) return mismatch
    if (media !== 'application/problem+json') return undefined
    const { status: told, code } = JSON.parse(text) as { status: number; code: string }
    if (told !== status) return `is ${status} and says ${told}`
    return !promised || promised.description.includes(`\`${code}\``)
      ? undefined
      : `the code ${code} is not promised for ${status}`
  }
}

const problemOf = (schema: Json) => ({ schema })
