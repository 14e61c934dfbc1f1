import { eventually } from './eventually.ts'

/** A client of the HTTP contract, as another program would write one. `base` may be a `Service`. */
export const api = (base: ApiBase): Api => {
  const request: Api['request'] = async (method, path, { body, headers = {}, signal } = {}) => {
    const response = await fetch(`${base.url}${path}`, {
      method,
      headers: {
        ...(base.token === undefined ? {} : { authorization: `Bearer ${base.token}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined
        ? {}
        : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      signal: signal ?? null,
    })
    return { status: response.status, headers: response.headers, body: await contentOf(response) }
  }
  const get: Api['get'] = (path, headers = {}) => request('GET', path, { headers })
  const post: Api['post'] = (path, body, headers = {}) => request('POST', path, { body, headers })

  return {
    request,
    get,
    post,
    createRun: async (body, headers) =>
      expected(202, 'POST /runs', await post('/runs', body, headers)),
    createBatch: async (runs, headers) => {
      const response = await post('/runs/batch', { runs }, headers)
      return expected<{ runs: Run[] }>(202, 'POST /runs/batch', response).runs
    },
    run: async (runId) => expected(200, `GET ${pathOf(runId)}`, await get(pathOf(runId))),
    waitForRun: (runId, options) => waitForRun(request, runId, options),
    events: (runId, options) => allEvents(get, runId, options),
    cancel: (runId, body = {}) => post(`${pathOf(runId)}/cancel`, body),
    resume: (runId, body = {}) => post(`/agent-runs/${encodeURIComponent(runId)}/resume`, body),
    respond: (runId, answer) => post(`${pathOf(runId)}/respond`, { answer }),
  }
}

export type ApiBase = { readonly url: string; readonly token?: string }

// oxlint-disable-next-line typescript/no-explicit-any -- answers are judged by the tests, field by field
export type Json = any

/** `body` is parsed where it is JSON, else the text, else `null`. */
export type ApiResponse<T = Json> = {
  readonly status: number
  readonly headers: Headers
  readonly body: T
}

type Headings = Readonly<Record<string, string>>

export type Api = {
  /** A `body` that is a string is sent as it is, so a test can post malformed JSON. */
  request<T = Json>(
    method: string,
    path: string,
    options?: { body?: unknown; headers?: Headings; signal?: AbortSignal },
  ): Promise<ApiResponse<T>>
  get<T = Json>(path: string, headers?: Headings): Promise<ApiResponse<T>>
  post<T = Json>(path: string, body?: unknown, headers?: Headings): Promise<ApiResponse<T>>
  /** @throws on any other answer than 202. */
  createRun(body: unknown, headers?: Headings): Promise<Run>
  /** @throws on any other answer than 202. */
  createBatch(runs: readonly unknown[], headers?: Headings): Promise<Run[]>
  /** @throws on any other answer than 200. */
  run(runId: string): Promise<Run>
  /**
   * The run, once it is terminal or `until` holds. A service that is away (restarting, 5xx) is asked
   * again.
   * @throws on a 4xx answer, and when the time is up, with the run as it was last seen.
   */
  waitForRun(runId: string, options?: WaitOptions): Promise<Run>
  /** All committed events so far, page by page. Default: from the first, at `internal`. */
  events(runId: string, options?: EventsOptions): Promise<RunEvent[]>
  cancel(runId: string, body?: unknown): Promise<ApiResponse>
  resume(runId: string, body?: unknown): Promise<ApiResponse>
  respond(runId: string, answer: unknown): Promise<ApiResponse>
}

export type WaitOptions = {
  readonly until?: (run: Run) => boolean
  /** Default: 20,000. */
  readonly timeoutMs?: number
}

export type Visibility = 'user' | 'operator' | 'internal'

export type EventsOptions = {
  readonly visibility?: Visibility
  readonly afterSequence?: number
  /** Page size; default: the service's. */
  readonly limit?: number
}

export type RunStatus =
  | 'queued'
  | 'waiting_on_lane'
  | 'running'
  | 'waiting_on_tool'
  | 'waiting_on_child'
  | 'waiting_on_human'
  | 'resuming'
  | 'cancel_requested'
  | 'cancelled'
  | 'completed'
  | 'failed'
  | 'timed_out'

/** The run object as in HTTP.md, the fields that tests ask for most with their types. */
export type Run = {
  readonly run_id: string
  readonly conversation_id: string
  readonly parent_run_id: string | null
  readonly root_run_id: string
  readonly agent: string
  readonly status: RunStatus
  readonly detail: string | null
  readonly lane_key: string
  readonly queue: string
  readonly attempt: number
  readonly node_id: string | null
  readonly stuck_reason: string | null
  readonly orphan: boolean
  readonly error_message: string | null
  readonly error_code: string | null
  readonly [field: string]: Json
}

export type RunEvent = {
  readonly id: number
  readonly event_type: string
  readonly run_id: string
  readonly conversation_id: string
  readonly sequence: number
  readonly visibility: Visibility
  readonly payload: Json
  readonly created_at: string
}

const TERMINAL: ReadonlySet<RunStatus> = new Set(['completed', 'failed', 'cancelled', 'timed_out'])

const isTerminal = (run: Pick<Run, 'status'>): boolean => TERMINAL.has(run.status)

const pathOf = (runId: string): string => `/runs/${encodeURIComponent(runId)}`

const contentOf = async (response: Response): Promise<Json> => {
  const text = await response.text()
  if (text === '') return null
  const isJson = /^application\/(\S+\+)?json\b/.test(response.headers.get('content-type') ?? '')
  return isJson ? JSON.parse(text) : text
}

const expected = <T>(status: number, what: string, response: ApiResponse<T>): T => {
  if (response.status === status) return response.body
  const body = JSON.stringify(response.body)
  throw new Error(`${what} answered ${response.status} instead of ${status}: ${body}`)
}

const waitForRun = async (
  request: Api['request'],
  runId: string,
  { until = isTerminal, timeoutMs = 20_000 }: WaitOptions = {},
): Promise<Run> => {
  let seen: Run | undefined
  // The long poll knows one condition only: terminal.
  const path = pathOf(runId) + (until === isTerminal ? '?wait=5s' : '')
  const answered = await eventually(
    async () => {
      // A node that froze in the middle of an answer must not use up the time.
      const signal = AbortSignal.timeout(Math.min(timeoutMs, 8_000))
      const response = await request<Run>('GET', path, { signal })
      if (response.status >= 400 && response.status < 500) return response
      seen = expected(200, `GET ${path}`, response)
      return until(seen) ? response : undefined
    },
    {
      timeoutMs,
      message: () => `what was awaited of ${runId}, last seen ${JSON.stringify(seen)},`,
    },
  )
  return expected(200, `GET ${path}`, answered)
}

const allEvents = async (
  get: Api['get'],
  runId: string,
  { visibility = 'internal', afterSequence = 0, limit }: EventsOptions = {},
): Promise<RunEvent[]> => {
  const all: RunEvent[] = []
  let after = afterSequence
  for (;;) {
    const query = new URLSearchParams({ after_sequence: String(after), visibility })
    if (limit !== undefined) query.set('limit', String(limit))
    const path = `${pathOf(runId)}/events?${query.toString()}`
    const page = expected<EventPage>(200, `GET ${path}`, await get(path))
    const last = page.events.at(-1)
    if (last === undefined) return all
    if (last.sequence <= after)
      throw new Error(`GET ${path} answered events from before its cursor`)
    all.push(...page.events)
    after = last.sequence
    if (page.next_cursor === null) return all
  }
}

type EventPage = { readonly events: RunEvent[]; readonly next_cursor: unknown }
