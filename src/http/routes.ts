import type { Context, Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { z } from 'zod'
import { Refusal } from '../errors.ts'
import { JSON_KEY_LENGTH_MAX } from '../json.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import { recordAudit } from '../store/audit.ts'
import { callerOf, demand, demandOwn, type Identity } from './access/identity.ts'
import { refused } from './audit.ts'
import { invalid, readBody, readQuery } from './body.ts'
import type { Answer, Checked, Endpoint, Params } from './contract/endpoint.ts'
import { existing } from './run-of-path.ts'
import type { Service } from './service.ts'

const NOTHING = z.strictObject({})
/** Of what a caller writes into a path, as much as the audit trail keeps. */
const TARGET_LENGTH_MAX = 255

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
    const { method, path, role, query, anyQuery, body, own } = endpoint
    const { access, bodyLimitBytes } = this.#service
    const answered = async (c: Context): Promise<Response> => {
      const params = paramsOf(c)
      if (role !== 'none') {
        demand(c.get('identity'), role)
        if (own && c.req.param('run_id') !== undefined)
          demandOwn(c.get('identity'), await existing(this.#service, c))
      }
      const asked = {
        c,
        params,
        query: anyQuery ? {} : readQuery(c, query ?? NOTHING),
        body: body ? await readBody(c, body, bodyLimitBytes) : undefined,
        identity: c.get('identity'),
        get caller() {
          return callerOf(c)
        },
      }
      return responseOf(c, await handler(asked as never))
    }
    this.#app.on(method, path.replaceAll(/\{(\w+)\}/g, ':$1'), async (c) => {
      if (role !== 'none') await access.admit(c)
      // What callers may read is theirs alone: nothing in between may keep it.
      if (role !== 'none' || method !== 'GET') c.header('cache-control', 'no-store')
      return answered(c).catch(async (error: unknown) => {
        await this.#audit(c, endpoint, error)
        throw error
      })
    })
    return this
  }

  /** The row of an action that its caller may not take, or whose target is not there. */
  async #audit(c: Context, { audits }: Endpoint, error: unknown): Promise<void> {
    if (audits === undefined || !(error instanceof Refusal)) return
    if (error.code !== 'forbidden' && error.code !== 'not_found') return
    const params: Record<string, string> = c.req.param()
    const target = (Object.values(params)[0] ?? c.req.path).slice(0, TARGET_LENGTH_MAX)
    const row = refused(callerOf(c), audits, target, error.code)
    const run_id = 'run_id' in params ? target : null
    await recordAudit(this.#service.reads, { ...row, run_id })
  }
}

/** What the path names. @throws Refusal validation_error */
function paramsOf(c: Context): Record<string, string> {
  const params: Record<string, string> = c.req.param()
  const errors = Object.entries(params)
    .filter(([, value]) => value.length > JSON_KEY_LENGTH_MAX)
    .map(([path]) => ({ path, message: `must have at most ${JSON_KEY_LENGTH_MAX} characters` }))
  if (errors.length > 0) throw invalid(errors)
  return params
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
