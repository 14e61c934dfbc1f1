import { type Context, Hono } from 'hono'
import { z } from 'zod'
import { messageProblems } from '../agents/loop.ts'
import type { Outbound } from '../agents/outbound.ts'
import { scriptProblems } from '../agents/script.ts'
import type { AgentCard } from '../agents/source.ts'
import { type FieldError, Refusal } from '../errors.ts'
import { hashJson } from '../json.ts'
import type { RunRequest } from '../runtime/create.ts'
import { listCheckpoints, logBounds, readRunEvents } from '../store/events.ts'
import { isTerminal, STATUSES } from '../store/rows.ts'
import { findRun, findRuns, knownQueues, listRuns, loadCalls } from '../store/runs.ts'
import { callerOf } from './auth.ts'
import { invalid, readBody, readQuery } from './body.ts'
import { instant, lastSequenceQuery, pageQuery, visibilityQuery } from './queries.ts'
import { batchBody, laneKeyOf, type RunBody, runBody } from './run-body.ts'
import { toRun } from './run-view.ts'
import type { Service } from './service.ts'
import { existing } from './run-of-path.ts'
import { waitForRun, waitQuery } from './wait.ts'
import { newConversationId } from '../ids.ts'

/** What an operator wants to see of the envelope: work, not the bookkeeping of replay. */
const SHOWN_CALLS: ReadonlySet<string> = new Set(['tool', 'step', 'model'])

const flag = z
  .enum(['true', 'false'])
  .transform((text) => text === 'true')
  .optional()
const listQuery = z.strictObject({
  ...pageQuery.shape,
  cursor: z
    .string()
    .regex(/^run_[0-9A-Z]{26}$/, 'is not a cursor of this list')
    .optional(),
  status: z
    .string()
    .transform((text) => text.split(','))
    .pipe(z.array(z.enum(STATUSES)))
    .optional(),
  agent: z.string().max(255).optional(),
  conversation_id: z.string().max(255).optional(),
  queue: z.string().max(255).optional(),
  lane_key: z.string().max(255).optional(),
  stuck: flag,
  orphan: flag,
  q: z.string().min(1).max(255).optional(),
  since: instant.optional(),
})
const eventsQuery = z.strictObject({
  after_sequence: lastSequenceQuery.default(0),
  visibility: visibilityQuery,
  limit: pageQuery.shape.limit,
  cursor: pageQuery.shape.cursor,
})
const oneQuery = z.strictObject({ wait: waitQuery })

/** Posting, listing and reading runs. */
export function runRoutes(service: Service): Hono {
  const { node, reads, bodyLimitBytes } = service
  const app = new Hono()

  app.post('/runs', async (c) => {
    const body = await readBody(c, runBody, bodyLimitBytes)
    const request = await checkedRequest(service, c, body, '')
    const created = await node.creator.create([keyed(c, request, body, '')])
    const run = await findRun(reads, created.run_ids[0] ?? '')
    if (!run) throw new Refusal('not_found', 'the run is gone')
    if (created.replayed) c.header('Idempotent-Replayed', 'true')
    c.header('Location', `/runs/${run.run_id}`)
    return c.json(toRun(run), created.existing ? 200 : 202)
  })

  app.post('/runs/batch', async (c) => {
    const { runs } = await readBody(c, batchBody, bodyLimitBytes)
    const requests: RunRequest[] = []
    for (const [index, body] of runs.entries()) {
      const path = `runs[${index}].`
      if (body.lane_policy === 'coalesce') {
        throw invalid([
          { path: `${path}lane_policy`, message: 'coalesce is not possible in a batch' },
        ])
      }
      const request = await checkedRequest(service, c, body, path)
      requests.push(keyed(c, request, runs, `#${index}`))
    }
    const created = await node.creator.create(requests)
    if (created.replayed) c.header('Idempotent-Replayed', 'true')
    return c.json(
      { runs: (await findRuns(reads, created.run_ids)).map(toRun) },
      created.existing ? 200 : 202,
    )
  })

  app.get('/runs', async (c) => {
    const query = readQuery(c, listQuery)
    // Read before the rows: a stream from this cursor repeats what the rows hold already, and misses nothing.
    const { last: cursor } = await logBounds(reads)
    // Nothing in this version finds a run stuck or orphaned, so none is.
    const rows = query.stuck || query.orphan ? [] : await listRuns(reads, query)
    const next_cursor = rows.length === query.limit ? (rows.at(-1)?.run_id ?? null) : null
    return c.json({ runs: rows.map(toRun), next_cursor, cursor })
  })

  app.get('/runs/:run_id', async (c) => {
    const { wait } = readQuery(c, oneQuery)
    const run = await waitForRun(service, c, wait, (row) => isTerminal(row.status))
    return c.json(toRun(run))
  })

  app.get('/runs/:run_id/events', async (c) => {
    const { cursor, after_sequence, visibility, limit } = readQuery(c, eventsQuery)
    const { run_id } = await existing(service, c)
    const events = await readRunEvents(reads, {
      run_id,
      afterSequence: Math.max(after_sequence, sequenceOf(cursor)),
      visibility,
      limit,
    })
    return c.json({
      events,
      next_cursor: events.length === limit ? String(events.at(-1)?.sequence) : null,
    })
  })

  app.get('/runs/:run_id/checkpoints', async (c) => {
    const { cursor, limit } = readQuery(c, pageQuery)
    const { run_id } = await existing(service, c)
    const checkpoints = await listCheckpoints(reads, run_id, sequenceOf(cursor), limit)
    const next_cursor = checkpoints.length === limit ? String(checkpoints.at(-1)?.sequence) : null
    return c.json({ checkpoints, next_cursor })
  })

  app.get('/runs/:run_id/tool-results', async (c) => {
    const { cursor, limit } = readQuery(c, pageQuery)
    const { run_id } = await existing(service, c)
    const after = sequenceOf(cursor)
    const calls = (await loadCalls(reads, run_id)).filter(
      (call) => SHOWN_CALLS.has(call.kind) && call.position > after,
    )
    const page = calls.slice(0, limit)
    const tool_results = page.map(({ args_hash: _hash, settled: _settled, ...call }) => call)
    return c.json({
      tool_results,
      next_cursor: calls.length > limit ? String(page.at(-1)?.position) : null,
    })
  })

  return app
}

async function checkedRequest(
  service: Service,
  c: Context,
  body: RunBody,
  path: string,
): Promise<RunRequest> {
  const agent = await service.agents.find(body.agent)
  if (!agent) {
    const message = await service.agents.whyUnknown(body.agent)
    throw new Refusal('unknown_agent', `there is no agent ${body.agent}: it ${message}`, {
      errors: [{ path: `${path}agent`, message }],
    })
  }
  const problems: FieldError[] = inputProblems(agent, body.input, service.outbound).map((one) => ({
    ...one,
    path: path + one.path,
  }))
  if (body.lane_policy !== 'enqueue' && (body.run_at ?? null) !== null)
    problems.push({
      path: `${path}lane_policy`,
      message: 'must be enqueue with a run_at: the lane is judged when the run is due',
    })
  if (body.surface === 'child')
    problems.push({ path: `${path}surface`, message: 'child runs are made by delegation' })
  const conversation_id = body.conversation_id ?? newConversationId()
  const lane = laneKeyOf(body, conversation_id)
  if ('missing' in lane)
    problems.push({ path: path + lane.missing, message: `is needed by surface ${body.surface}` })
  if (problems.length > 0 || 'missing' in lane) throw invalid(problems)
  if (lane.laneKey.length > 600)
    throw invalid([{ path: `${path}lane_key`, message: 'is too long' }])
  await checkQueue(service, body.queue, path)
  const traceparent = c.req.header('traceparent')
  return {
    conversation_id,
    agent: body.agent,
    surface: body.surface,
    created_by: callerOf(c).name,
    owner: body.owner ?? null,
    lane_key: lane.laneKey,
    lane_policy: body.lane_policy,
    queue: body.queue,
    priority: body.priority,
    run_at: body.run_at ?? null,
    hold_lane_on_human: body.hold_lane_on_human ?? agent.hold_lane_on_human,
    idempotency_key: null,
    input: body.input,
    metadata: body.metadata,
    options: {
      timeouts: body.timeouts as NonNullable<RunRequest['options']['timeouts']>,
      execution_timeout_override: body.execution_timeout_override ?? null,
      ...(traceparent !== undefined && TRACEPARENT.test(traceparent) ? { traceparent } : {}),
    },
  }
}

function inputProblems(agent: AgentCard, input: unknown, outbound: Outbound): FieldError[] {
  if (agent.takes === 'script') return scriptProblems(input, outbound)
  return agent.takes === 'messages' ? messageProblems(input) : []
}

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/

const queues = new WeakMap<Service, Set<string>>()

/** Queues are never deleted, so a name that was seen stays good. */
async function checkQueue(service: Service, name: string, path: string): Promise<void> {
  const known = queues.get(service)
  if (known?.has(name)) return
  const fresh = new Set(await knownQueues(service.reads))
  queues.set(service, fresh)
  if (fresh.has(name)) return
  throw new Refusal('unknown_queue', `there is no queue ${name}`, {
    errors: [{ path: `${path}queue`, message: `is none of ${[...fresh].join(', ')}` }],
  })
}

/** The key counts per caller and for as long as the run exists; bodies are compared by meaning. */
function keyed(c: Context, request: RunRequest, body: unknown, suffix: string): RunRequest {
  const key = c.req.header('idempotency-key')
  if (key === undefined) return request
  if (key === '' || key.length > 255)
    throw invalid([{ path: 'Idempotency-Key', message: 'must have 1 to 255 characters' }])
  return {
    ...request,
    idempotency_key: `${c.req.path}:${key}${suffix}`,
    options: { ...request.options, request_hash: hashJson(withoutNulls(body)) },
  }
}

/** A field that is null means the same as one that is left out; what is inside `input` and `metadata` is not ours. */
function withoutNulls(body: unknown): unknown {
  if (Array.isArray(body)) return body.map(withoutNulls)
  return Object.fromEntries(Object.entries(body as object).filter(([, value]) => value !== null))
}

function sequenceOf(cursor: string | undefined): number {
  if (cursor === undefined) return 0
  if (/^\d{1,9}$/.test(cursor)) return Number(cursor)
  throw invalid([{ path: 'cursor', message: 'is not a cursor of this list' }])
}
