import type { Client } from './client.ts'
import { RunlaneError } from './errors.ts'
import { eventStream, isTerminal } from './events.ts'
import { type Ask, Http, type HttpOptions, newKey, route, type QueryValue } from './http.ts'
import type {
  CallOptions,
  ClientOptions,
  CommandOptions,
  ListOptions,
  PlainCommandOptions,
} from './options.ts'
import { type Listing, listing, type Page } from './pages.ts'
import { limitOf, now } from './time.ts'
import type * as t from './types.ts'

const RETRIES = 4
const TIMEOUT_MS = 30_000
const OUTAGE_MS = 5 * 60_000
/** One long poll. Many proxies end what is silent for a minute. */
const POLL_MS = 25_000

/**
 * A client of the service at `url`.
 *
 * ```ts
 * const runlane = createClient({ url: 'http://127.0.0.1:7420', token })
 * const { run_id } = await runlane.postRun({ agent: 'assistant', input: { message: 'Hello' } })
 * const { output } = await runlane.wait(run_id)
 * ```
 *
 * Sends nothing yet. @throws {TypeError} for an address that is none, and for options out of range
 */
export function createClient(options: ClientOptions): Client {
  const { outageMs = OUTAGE_MS } = options
  const http = new Http(checked(options))
  return {
    ...postingOf(http),
    ...readingOf(http),
    ...commandsOf(http),
    ...operatingOf(http),
    ...conversationsOf(http),
    ...agentsOf(http),
    ...administrationOf(http),
    wait: (runId, { timeoutMs = Infinity, signal } = {}) =>
      waitFor(http, runId, { timeoutMs, signal, outageMs }),
    events: (which = {}) => eventStream(http, outageMs, which),
    request: (method, target, { query = {}, ...rest } = {}) =>
      http.json({ method, path: target, query, ...rest }),
  }
}

function checked(options: ClientOptions): HttpOptions {
  const { token, retries = RETRIES, timeoutMs = TIMEOUT_MS, outageMs = OUTAGE_MS } = options
  const url = new URL(options.url)
  if (!/^https?:$/.test(url.protocol))
    throw new TypeError('url must begin with http:// or https://')
  if (url.search !== '' || url.hash !== '' || url.username !== '')
    throw new TypeError('url must be an address without a user, a query or a fragment')
  for (const [name, value] of Object.entries({ retries, timeoutMs, outageMs })) {
    if (!(value >= 0)) throw new TypeError(`${name} must be a number that is not negative`)
  }
  // Called as a method of anything else, the platform's own refuses.
  const fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init))
  return { url, token, fetch, retries, timeoutMs }
}

const postingOf = (http: Http): Pick<Client, 'postRun' | 'postRuns'> => ({
  postRun: (draft, { idempotencyKey = newKey(), signal } = {}) =>
    http.json({ method: 'POST', path: '/runs', body: draft, idempotencyKey, signal }),
  postRuns: async (drafts, { idempotencyKey = newKey(), signal } = {}) => {
    const ask = { method: 'POST', path: '/runs/batch', body: { runs: drafts } } as const
    return (await http.json<{ runs: t.RunSummary[] }>({ ...ask, idempotencyKey, signal })).runs
  },
})

const get = <T>(http: Http, target: string, options: CallOptions & { query?: Query } = {}) =>
  http.json<T>({ method: 'GET', path: target, ...options })
type Query = Readonly<Record<string, QueryValue>>

/** A list at `target` whose pages have their rows under `name`. */
const list = <P extends Page, N extends keyof P>(
  http: Http,
  target: string,
  name: N,
  { pageSize, signal }: ListOptions = {},
  filter: Query = {},
): Listing<P[N] extends readonly (infer T)[] ? T : never, P> =>
  listing(
    (cursor) => get<P>(http, target, { query: { ...filter, limit: pageSize, cursor }, signal }),
    (page) => page[name] as never,
  )

const readingOf = (http: Http) =>
  ({
    getRun: (runId, options) => get(http, route`/runs/${runId}`, options),
    listRuns: (filter = {}) => {
      const { pageSize, signal, conversationId, laneKey, ...rest } = filter
      const query = { ...rest, conversation_id: conversationId, lane_key: laneKey }
      return list(http, '/runs', 'runs', { pageSize, signal }, query)
    },
    listRunEvents: (runId, { afterSequence, visibility, ...options } = {}) => {
      const query = { after_sequence: afterSequence, visibility }
      return list(http, route`/runs/${runId}/events`, 'events', options, query)
    },
    listCheckpoints: (runId, options) =>
      list(http, route`/runs/${runId}/checkpoints`, 'checkpoints', options),
    listToolResults: (runId, options) =>
      list(http, route`/runs/${runId}/tool-results`, 'tool_results', options),
    listChildren: (runId, options) =>
      list(http, route`/runs/${runId}/children`, 'children', options),
    listAttempts: (runId, options) =>
      list(http, route`/runs/${runId}/attempts`, 'attempts', options),
    getJournal: (runId, options) => get(http, route`/runs/${runId}/journal`, options),
    getDiagnosis: (runId, options) => get(http, route`/runs/${runId}/diagnosis`, options),
    previewResume: (runId, options) => get(http, route`/runs/${runId}/resume-preview`, options),
    getStatechart: (runId, { at, signal } = {}) =>
      get(http, route`/runs/${runId}/statechart`, { query: { at }, signal }),
  }) satisfies Partial<Client>

/** A command, whose answer takes as long as it is to wait for the run. */
const command = (
  http: Http,
  target: string,
  { waitMs, signal, idempotencyKey = newKey() }: CommandOptions,
  body: object,
) => {
  const query = { wait: waitMs === undefined ? undefined : `${Math.max(1, Math.round(waitMs))}ms` }
  const ask: Ask = { method: 'POST', path: target, query, body, idempotencyKey, signal }
  return http.json<t.Commanded>({ ...ask, expectMs: waitMs })
}

const commandsOf = (
  http: Http,
): Pick<Client, 'cancelRun' | 'signal' | 'respond' | 'resumeRun'> => ({
  cancelRun: (runId, { reason, ...options } = {}) =>
    command(http, route`/runs/${runId}/cancel`, options, { reason }),
  signal: (runId, name, data = null, options = {}) =>
    command(http, route`/runs/${runId}/signal`, options, { name, data }),
  respond: (runId, answer, { tokenId, ...options } = {}) =>
    command(http, route`/runs/${runId}/respond`, options, { answer, token_id: tokenId }),
  resumeRun: (runId, { reason, resolutions, ...options } = {}) =>
    command(http, route`/agent-runs/${runId}/resume`, options, { reason, resolutions }),
})

const RUNTIME = '/api/v1/admin/agent-runtime'

/** What operators do and see. */
const operatingOf = (http: Http) =>
  ({
    forkRun: (runId, checkpoint_id, { input, reason, signal, idempotencyKey = newKey() } = {}) => {
      const body = { checkpoint_id, input, reason }
      const ask = { method: 'POST', path: route`/runs/${runId}/fork`, body } as const
      return http.json({ ...ask, idempotencyKey, signal })
    },
    extendRun: (runId, byMs, { reason, ...options } = {}) =>
      command(http, route`/runs/${runId}/extend`, options, { by: `${byMs}ms`, reason }),
    stopRun: (target, { reason, ...options } = {}) =>
      command(http, `${RUNTIME}${route`/runs/${target}/stop`}`, options, { reason }),
    recycleRun: (target, { reason, force, ...options } = {}) =>
      command(http, `${RUNTIME}${route`/runs/${target}/recycle`}`, options, { reason, force }),
    interruptSubagent: (runId, { reason, ...options } = {}) =>
      command(http, `${RUNTIME}${route`/subagents/${runId}/interrupt`}`, options, { reason }),
    bulkRuns: (action, filter, { reason, dryRun, cursor, signal, idempotencyKey = newKey() }) => {
      const { conversationId, laneKey, runIds, ...rest } = filter
      const names = { conversation_id: conversationId, lane_key: laneKey, run_ids: runIds }
      const body = { action, filter: { ...rest, ...names }, reason, dry_run: dryRun, cursor }
      return http.json({ method: 'POST', path: '/runs/bulk', body, idempotencyKey, signal })
    },
    sweep: ({ reason, signal, idempotencyKey = newKey() } = {}) => {
      const ask = { method: 'POST', path: `${RUNTIME}/sweep`, body: { reason } } as const
      return http.json({ ...ask, idempotencyKey, signal })
    },
    getSnapshot: ({ limit, signal } = {}) =>
      get(http, `${RUNTIME}/snapshot`, { query: { limit }, signal }),
  }) satisfies Partial<Client>

const conversationsOf = (http: Http): Pick<Client, 'getAgentStatus' | 'cancelAgentRun'> => ({
  getAgentStatus: (id, options) => get(http, route`/conversations/${id}/agent-status`, options),
  cancelAgentRun: (id, { reason, signal, idempotencyKey = newKey() } = {}) => {
    const target = route`/conversations/${id}/agent-runs/cancel`
    return http.json({ method: 'POST', path: target, body: { reason }, idempotencyKey, signal })
  },
})

const remove = async (
  http: Http,
  path: string,
  { reason, signal, idempotencyKey = newKey() }: PlainCommandOptions = {},
): Promise<void> => {
  const body = reason === undefined ? undefined : { reason }
  await http.text({ method: 'DELETE', path, body, idempotencyKey, signal })
}

const agentsOf = (http: Http) =>
  ({
    listAgents: (options) => get(http, '/agents', options),
    getAgent: (name, options) => get(http, route`/agents/${name}`, options),
    declareAgent: (agent, { idempotencyKey = newKey(), signal } = {}) =>
      http.json({ method: 'POST', path: '/agents', body: agent, idempotencyKey, signal }),
    deleteAgent: async (name, options) => remove(http, route`/agents/${name}`, options),
    listMachines: (options) => get(http, '/machines', options),
    getMachine: (id, options) => get(http, route`/machines/${id}`, options),
    getMachineDiagram: (id, kind, options) => {
      const target = route`/machines/${`${id}.${kind}`}`
      return http.text({ method: 'GET', path: target, headers: { accept: '*/*' }, ...options })
    },
  }) satisfies Partial<Client>

const administrationOf = (http: Http) =>
  ({
    createToken: (token, options) =>
      http.json({ method: 'POST', path: '/api/v1/admin/tokens', body: token, ...options }),
    listTokens: (options) => get(http, '/api/v1/admin/tokens', options),
    revokeToken: async (id, options) => remove(http, route`/api/v1/admin/tokens/${id}`, options),
    listAudit: ({ action, actor, since, ...options } = {}) =>
      list(http, '/api/v1/admin/audit', 'audit', options, { action, actor, since }),
    listNodes: (options) => get(http, '/api/v1/admin/nodes', options),
    whoAmI: (options) => get(http, '/session', options),
    healthz: (options) => get(http, '/healthz', options),
    readyz: async (options) => {
      try {
        return await http.json<t.Readiness>({
          ...{ method: 'GET', path: '/readyz', ...options },
          // Its 503 is an answer, not a reason to ask again.
          retries: 0,
        })
      } catch (error) {
        if (error instanceof RunlaneError && error.problem['status'] === 'not_ready')
          return error.problem as t.Readiness
        throw error
      }
    },
  }) satisfies Partial<Client>

async function waitFor(
  http: Http,
  runId: string,
  { timeoutMs, signal, outageMs }: CallOptions & { timeoutMs: number; outageMs: number },
): Promise<t.Run> {
  const target = route`/runs/${runId}`
  const deadline = now() + timeoutMs
  const limit = limitOf(signal)
  let seen: t.Run | undefined
  limit.start(timeoutMs)
  try {
    for (;;) {
      // The first time without a wait: whoever gives up early has seen the run at least.
      const expectMs = seen && Math.max(1, Math.round(Math.min(POLL_MS, deadline - now())))
      const query = { wait: expectMs && `${expectMs}ms` }
      const ask: Ask = { method: 'GET', path: target, query, signal: limit.signal }
      seen = await http.json<t.Run>({ ...ask, expectMs, outageMs })
      if (isTerminal(seen)) return seen
      limit.signal.throwIfAborted()
    }
  } catch (error) {
    if (!limit.expired || signal?.aborted) throw error
    const { status = null, stuck_reason = null } = seen ?? {}
    const stuck = stuck_reason === null ? '' : `, stuck: ${stuck_reason}`
    const last = status === null ? 'was not seen' : `is ${status}${stuck}`
    const detail = `run ${runId} did not end within ${timeoutMs} ms: it ${last}`
    const problem = { run_id: runId, run_status: status, stuck_reason }
    throw new RunlaneError({ code: 'wait_timeout', detail, problem })
  } finally {
    limit.end()
  }
}
