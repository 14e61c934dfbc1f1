import type { Json } from './api.ts'

/** The service's own OpenAPI document, as far as tests read it. */
export type Contract = {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Json>> }
}

export type Operation = {
  readonly operationId: string
  readonly 'x-role': 'none' | 'viewer' | 'service' | 'operator' | 'admin'
  readonly 'x-own-runs'?: true
  readonly 'x-audit'?: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: {
    readonly required: boolean
    readonly content: { readonly 'application/json': { readonly schema: Json } }
  }
  readonly responses: Readonly<Record<string, Answer>>
}

export type Parameter = {
  readonly in: 'path' | 'query' | 'header'
  readonly name: string
  readonly required?: boolean
  readonly schema: Json
}

export type Answer = {
  readonly description: string
  readonly headers?: Readonly<Record<string, unknown>>
  readonly content?: Readonly<Record<string, { readonly schema: Json }>>
}

export type Route = {
  /** `POST /runs`. */
  readonly name: string
  readonly method: string
  readonly path: string
  readonly operation: Operation
}

export const contractOf = async (url: string): Promise<Contract> => {
  const response = await fetch(`${url}/openapi.json`)
  return (await response.json()) as Contract
}

export const routesOf = ({ paths }: Contract): Route[] =>
  Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([name, operation]) => {
      const method = name.toUpperCase()
      return { name: `${method} ${path}`, method, path, operation }
    }),
  )

/** The path with its variable parts written in. @throws when `values` lacks one of them */
export const filled = (path: string, values: Readonly<Record<string, string>>): string =>
  path.replaceAll(/\{(\w+)\}/g, (_whole, name: string) => {
    const value = values[name]
    if (value === undefined) throw new Error(`nothing is said about {${name}} of ${path}`)
    return encodeURIComponent(value)
  })
