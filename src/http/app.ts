import { Hono } from 'hono'
import { requestId } from 'hono/request-id'
import { secureHeaders } from 'hono/secure-headers'
import { messageOf, Refusal } from '../errors.ts'
import { SparingLog } from '../sparing-log.ts'
import { consoleRoutes } from '../console/routes.ts'
import { adminRoutes } from './admin.ts'
import { agentRoutes } from './agents.ts'
import { bulkRoutes } from './bulk.ts'
import { chartRoutes } from './charts.ts'
import { commandRoutes } from './commands.ts'
import { conversationRoutes } from './conversations.ts'
import { docsRoutes } from './docs.ts'
import { forkingRoutes } from './forking.ts'
import { methodsAt } from './methods.ts'
import { postingRoutes } from './posting.ts'
import { probeRoutes } from './probes.ts'
import { problem, problemOf, STATUS } from './problem.ts'
import { runRoutes } from './runs.ts'
import { runtimeRoutes } from './runtime.ts'
import type { Service } from './service.ts'
import { sessionRoutes } from './session.ts'
import { sweepRoute } from './sweep.ts'
import { streamRoutes } from './streams.ts'

/** Inline style is allowed for the charts, which carry their own; inline script is not. */
const CONTENT_SECURITY_POLICY = {
  defaultSrc: ["'self'"],
  styleSrc: ["'self'", "'unsafe-inline'"],
  imgSrc: ["'self'", 'data:'],
  frameAncestors: ["'none'"],
  baseUri: ["'none'"],
  formAction: ["'self'"],
}

const ROUTES = [
  probeRoutes,
  docsRoutes,
  sessionRoutes,
  postingRoutes,
  forkingRoutes,
  runRoutes,
  commandRoutes,
  bulkRoutes,
  conversationRoutes,
  agentRoutes,
  chartRoutes,
  streamRoutes,
  runtimeRoutes,
  sweepRoute,
  adminRoutes,
]

/** The whole HTTP surface. Everything but probes and the console's static files needs a token. */
export function createApp(service: Service): Hono {
  const app = new Hono()
  app.use(
    requestId(),
    secureHeaders({
      contentSecurityPolicy: CONTENT_SECURITY_POLICY,
      xFrameOptions: 'DENY',
    }),
  )
  const sparing = new SparingLog(service.log)
  app.onError((error, c) => {
    const facts = {
      request_id: c.get('requestId'),
      run_id: c.req.param('run_id'),
      method: c.req.method,
      path: c.req.path,
    }
    const refusal = problemOf(error)
    if (refusal) {
      const { code, cause } = refusal
      const why = cause === undefined ? {} : { problem: messageOf(cause) }
      if (STATUS[code] >= 500)
        sparing.tell('warn', code, { ...facts, code, ...why }, 'requests cannot be served now')
      return problem(c, refusal)
    }
    service.log.error({ ...facts, problem: error.stack ?? String(error) }, 'a request failed')
    return c.json(
      { type: 'about:blank', title: 'Internal Server Error', status: 500, code: 'internal_error' },
      500,
      {
        'content-type': 'application/problem+json',
      },
    )
  })
  // htmx 4 swaps in answers of any status: a problem document would take the place of a panel, and end its polling.
  app.use(async (c, next) => {
    await next()
    const isProblem = c.res.headers.get('content-type')?.startsWith('application/problem+json')
    if (isProblem && c.req.header('hx-request') === 'true') c.header('hx-reswap', 'none')
  })
  // Postgres holds no NUL, so nothing is there under such a name; asked for it, the database would fail.
  app.use(async (c, next) => {
    if (/%00|\0/.test(c.req.path))
      throw new Refusal('not_found', 'there is nothing at a path with a NUL character')
    await next()
  })
  // Who is not known learns nothing, not even what is not there.
  app.notFound(async (c) => {
    try {
      await service.access.admit(c)
    } catch (error) {
      const refusal = problemOf(error)
      if (refusal) return problem(c, refusal)
      throw error
    }
    const path = c.req.path.slice(0, 200)
    const methods = methodsAt(app, c.req.path)
    if (methods.length === 0 || methods.includes(c.req.method))
      return problem(c, new Refusal('not_found', `there is nothing at ${path}`))
    c.header('allow', methods.join(', '))
    const text = `${path} takes ${methods.join(', ')}, and not ${c.req.method.slice(0, 20)}`
    return problem(c, new Refusal('method_not_allowed', text))
  })
  app.route('/', consoleRoutes())
  for (const routes of ROUTES) routes(app, service)
  return app
}
