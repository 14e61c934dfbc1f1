import { z } from 'zod'
import {
  createDocument,
  type ZodOpenApiOperationObject,
  type ZodOpenApiPathsObject,
} from 'zod-openapi'
import type { RefusalCode } from '../errors.ts'
import type { Endpoint, Media } from './contract/endpoint.ts'
import { ENDPOINTS } from './contract/all.ts'
import { notice, noticeHeaders, NOTICES } from './contract/webhooks.ts'
import { STATUS } from './problem.ts'

const problem = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    code: z.string().meta({ description: 'stable; what programs look at' }),
    detail: z.string().optional(),
    instance: z.string().optional(),
    errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
  })
  .meta({ id: 'Problem', description: 'RFC 9457' })

const idempotencyKey = z.string().min(1).max(255).optional().meta({
  description:
    'counts per caller, for as long as the run exists; for thirty days where an agent or a token is made or deleted or many runs are acted on',
})

const lastEventId = z
  .string()
  .optional()
  .meta({ description: 'the cursor of a client that comes back; goes before those of the query' })

/** Headers that problem documents come with, by status. */
const PROBLEM_HEADERS: Readonly<Record<string, Record<string, string>>> = {
  401: { 'WWW-Authenticate': '`Bearer`' },
  429: { 'Retry-After': 'seconds' },
  503: { 'Retry-After': 'seconds' },
}

/** The contract as OpenAPI 3.1, made from the very schemas that validate. */
export const openApi = (version: string) =>
  createDocument(
    {
      openapi: '3.1.0',
      info: {
        title: 'Runlane',
        version,
        description:
          'A self-hosted runtime for AI-agent runs. Errors are problem documents (RFC 9457) with a stable `code`. A method that a path does not have is answered with 405, the code `method_not_allowed` and the others in `Allow`; a path that does not exist with 404; both with 401 to whoever is not known. A request line with headers of more than 16 KB is answered with 431 (`head_too_large`), what is no HTTP with 400 (`bad_request`), and the connection is closed.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      security: [{ token: [] }, { session: [] }],
      paths: pathsOf(ENDPOINTS),
      webhooks: { notice: { post: noticeOperation } },
      components: {
        securitySchemes: {
          token: { type: 'http', scheme: 'bearer', description: 'an API token or a JWT' },
          session: { type: 'apiKey', in: 'cookie', name: '__Host-runlane' },
        },
      },
    },
    { allowEmptySchema: { custom: true } },
  )

const noticeOperation: ZodOpenApiOperationObject = {
  operationId: 'notice',
  summary: 'a notice to the `callback_url` of a run, and to `RUNLANE_WEBHOOK_URLS`',
  description: Object.entries(NOTICES)
    .map(([type, says]) => `- \`${type}\`: ${says}`)
    .join('\n'),
  security: [],
  requestParams: { header: noticeHeaders },
  requestBody: { required: true, content: { 'application/cloudevents+json': { schema: notice } } },
  responses: {
    '2XX': { description: 'it has arrived' },
    410: { description: 'no more of it, please' },
    default: { description: 'it is sent again for 24 hours, not before `Retry-After`' },
  },
}

function pathsOf(endpoints: readonly Endpoint[]): ZodOpenApiPathsObject {
  const paths: ZodOpenApiPathsObject = {}
  for (const endpoint of endpoints) {
    const method = endpoint.method.toLowerCase() as 'get'
    paths[endpoint.path] = { ...paths[endpoint.path], [method]: operationOf(endpoint) }
  }
  return paths
}

function operationOf(endpoint: Endpoint): ZodOpenApiOperationObject {
  const { id, tag, does, role, own, audits, query, body, keyed, resumes } = endpoint
  const params = endpoint.path.match(/(?<=\{)\w+(?=\})/g) ?? []
  const path = z.object(Object.fromEntries(params.map((name) => [name, z.string()])))
  return {
    operationId: id,
    tags: [tag],
    summary: does,
    'x-role': role,
    ...(own ? { 'x-own-runs': true } : {}),
    ...(audits ? { 'x-audit': audits } : {}),
    ...(role === 'none' ? { security: [] } : {}),
    requestParams: {
      ...(params.length > 0 ? { path } : {}),
      ...(query ? { query } : {}),
      ...(keyed ? { header: z.object({ 'Idempotency-Key': idempotencyKey }) } : {}),
      ...(resumes ? { header: z.object({ 'Last-Event-ID': lastEventId }) } : {}),
    },
    ...(body
      ? {
          requestBody: {
            required: !body.safeParse({}).success,
            content: { 'application/json': { schema: body } },
          },
        }
      : {}),
    responses: { ...answersOf(endpoint), ...problemsOf(endpoint) },
  } as ZodOpenApiOperationObject
}

const mediaOf = (media: readonly Media[]): Record<string, object> =>
  Object.fromEntries(
    media.map((one) => [one.media, { schema: z.string().meta({ description: one.says }) }]),
  )

function answersOf(endpoint: Endpoint): Record<string, object> {
  const { answers, also = [], keyed } = endpoint
  const headers = headersOf({
    ...endpoint.headers,
    ...(keyed ? { 'Idempotent-Replayed': '`true`: the answer to an earlier request' } : {}),
  })
  return Object.fromEntries(
    Object.entries(answers).map(([status, schema]) => {
      if (schema === null) return [status, { description: 'done', ...headers }]
      if (isMedia(schema))
        return [
          status,
          { description: schema.says, content: { [schema.media]: { schema: z.string() } } },
        ]
      const content = { 'application/json': { schema }, ...mediaOf(also) }
      return [status, { description: 'as asked for', ...headers, content }]
    }),
  )
}

const headersOf = (given: Record<string, string>): object =>
  Object.keys(given).length === 0
    ? {}
    : {
        headers: Object.fromEntries(
          Object.entries(given).map(([name, description]) => [
            name,
            { description, schema: { type: 'string' } },
          ]),
        ),
      }

const isMedia = (answer: z.ZodType | Media): answer is Media => 'media' in answer

/** What any operation of its kind may refuse, and what this one does. */
function problemsOf({
  role,
  query,
  anyQuery,
  body,
  keyed,
  path,
  also = [],
  refuses = [],
}: Endpoint): Record<string, object> {
  // A query that an operation does not know is one that does not fit.
  const codes: RefusalCode[] = [...refuses]
  if (!anyQuery) codes.push('validation_error')
  if (role !== 'none')
    codes.push(
      'unauthorized',
      'forbidden',
      'rate_limited',
      'database_unavailable',
      'keys_unavailable',
    )
  if (body)
    codes.push('bad_request', 'body_too_large', 'unsupported_encoding', 'database_unavailable')
  if (keyed) codes.push('idempotency_conflict')
  if (query && 'wait' in query.shape) codes.push('too_many_connections')
  if (path.includes('{')) codes.push('not_found')
  const byStatus = Object.groupBy([...new Set(codes)], (code) => STATUS[code])
  return Object.fromEntries(
    Object.entries(byStatus).map(([status, names]) => [
      status,
      {
        description: names?.map((name) => `\`${name}\``).join(', ') ?? '',
        ...headersOf(PROBLEM_HEADERS[status] ?? {}),
        content: {
          'application/problem+json': { schema: problem },
          // A panel is the answer to what could not be done as well: it shows why.
          ...(status === '409' ? mediaOf(also) : {}),
        },
      },
    ]),
  )
}
