import type { Context, Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { z } from 'zod'
import type { Caller } from '../runtime/commands.ts'
import { callerOf, demand, demandOwn, type Identity } from './access/identity.ts'
import { readBody, readQuery } from './body.ts'
import type { Answer, Checked, Endpoint, Params } from './contract/endpoint.ts'
import { existing } from './run-of-path.ts'
import type { Service } from './service.ts'

const NOTHING = z.strictObject({})

/** A request that was let in and checked. */
export interface Asked<E extends Endpoint> {
  c: Context
  params: Params<E['path']>
  query: Checked<E['query']>
  body: Checked<E['body']>
  /** Of an operation that needs authentication. */
  identity: Identity
  caller: Caller
}

type Handler<E extends Endpoint> = (asked: Asked<E>) => Promise<Answer<E>> | Answer<E>

/**
 * Puts the operations of the contract into an app. For each: who is asking and may they, what do they ask (query and body
 * against their schemas), and only then the handler, whose answers are typed by the contract.
 */
export class Routes {
  #app: Hono
  #service: Service

  constructor(app: Hono, service: Service) {
    this.#app = app
    this.#service = service
  }

  on<E extends Endpoint>(endpoint: E, handler: Handler<E>): this {
    const { method, path, role, query, body, own } = endpoint
    const { access, bodyLimitBytes } = this.#service
    this.#app.on(method, path.replaceAll(/\{(\w+)\}/g, ':$1'), async (c) => {
      if (role !== 'none') {
        const identity = await access.admit(c)
        demand(identity, role)
        if (own && c.req.param('run_id') !== undefined)
          demandOwn(identity, await existing(this.#service, c))
      }
      const asked = {
        c,
        params: c.req.param(),
        query: readQuery(c, query ?? NOTHING),
        body: body ? await readBody(c, body, bodyLimitBytes) : undefined,
        identity: c.get('identity'),
        get caller() {
          return callerOf(c)
        },
      }
      return responseOf(c, await handler(asked as never))
    })
    return this
  }
}

/** An answer of a handler, its status kept as a literal. */
export const answer = <const S extends number, B>(
  status: S,
  body: B,
  headers: Record<string, string> = {},
): { status: S; body: B; headers: Record<string, string> } => ({ status, body, headers })

function responseOf(
  c: Context,
  given: Response | { status: number; body?: unknown; headers?: Record<string, string> },
): Response {
  if (given instanceof Response) return given
  const { status, body, headers = {} } = given
  for (const [name, value] of Object.entries(headers)) c.header(name, value)
  if (body === undefined) return c.body(null, status as 204)
  return c.json(body as never, status as ContentfulStatusCode)
}
