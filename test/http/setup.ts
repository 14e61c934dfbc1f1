import { afterAll, expect } from 'vitest'
import { type Api, type ApiResponse, api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, type ServiceOptions, startService } from '../support/service.ts'

export type Served = Api & { readonly service: Service }

/**
 * A service for the tests of a file, ended after them. Call it while tests are collected:
 * `const { post } = await serve()`. `database` is a fresh one of its own.
 */
export const serve = async (
  database: Database,
  options: Omit<ServiceOptions, 'databaseUrl'> = {},
): Promise<Served> => {
  const databaseUrl = database === 'postgres' ? await freshDatabase() : undefined
  const service = await startService({ ...options, databaseUrl })
  // Not `stop`: runs that hang on purpose would use up the whole drain.
  afterAll(() => service.kill())
  return { service, ...api(service) }
}

/** The same service on each kind of database, for tests that must hold on both. */
export const serveOnBoth = async (
  options: Omit<ServiceOptions, 'databaseUrl'> = {},
): Promise<Record<Database, Served>> => {
  const [postgres, pglite] = await Promise.all([
    serve('postgres', options),
    serve('pglite', options),
  ])
  return { postgres, pglite }
}

export type Database = 'postgres' | 'pglite'
export const DATABASES: readonly Database[] = ['postgres', 'pglite']

/** Expects an RFC 9457 problem document; `paths` are the fields that `errors` names, in any order. */
export const expectProblem = (
  { status, headers, body }: ApiResponse,
  wanted: { status: number; code: string; paths?: readonly string[] },
): void => {
  const errors: { path: string; message: string }[] = body?.errors ?? []
  for (const { path, message } of errors)
    expect(`${path} ${message}`).toSatisfy(() => goesOn(message))
  const paths = [...new Set(errors.map((error) => error.path))].toSorted()
  expect({ status, code: body?.code, paths, detail: body?.detail }).toEqual({
    status: wanted.status,
    code: wanted.code,
    paths: wanted.paths?.toSorted() ?? paths,
    detail: expect.stringMatching(/\S/),
  })
  expect(headers.get('content-type')).toBe('application/problem+json')
  expect(body).toMatchObject({
    type: 'about:blank',
    title: expect.stringMatching(/\S/),
    status: wanted.status,
  })
}

/** A message reads on after the path of its field: a verb comes first, and nothing in it is a validator's own text. */
const goesOn = (message: string): boolean =>
  /^(is|has|must|may|does|contains|needs|cannot) \S/.test(message) &&
  !/Invalid |received|[<>]=/.test(message)

/** A run of the scripted agent, `more` being further fields of the body. */
export const scripted = (steps: readonly unknown[], more: Record<string, unknown> = {}) => ({
  agent: 'scripted',
  input: { steps },
  ...more,
})
