import type { Context } from 'hono'
import { messageProblems } from '../agents/loop.ts'
import type { Outbound } from '../agents/outbound.ts'
import { scriptProblems } from '../agents/script.ts'
import type { AgentCard } from '../agents/source.ts'
import { type FieldError, Refusal } from '../errors.ts'
import { newConversationId } from '../ids.ts'
import type { RunRequest } from '../runtime/commands/create.ts'
import { knownQueues } from '../store/runs.ts'
import { callerOf } from './access/identity.ts'
import { invalid } from './body.ts'
import type { RunBody } from './contract/run-body.ts'
import { laneKeyOf } from './lane-key.ts'
import type { Service } from './service.ts'

/**
 * What the body of POST /runs asks for. `path`: where the body is in the request, with its last dot.
 * @throws Refusal unknown_agent, unknown_queue, validation_error
 */
export async function checkedRequest(
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
    problems.push({
      path: `${path}surface`,
      message: 'must not be child: child runs are made by delegation',
    })
  const callbackProblem = problemOfCallback(service, body)
  if (callbackProblem) problems.push({ path: `${path}callback_url`, message: callbackProblem })
  const conversation_id = body.conversation_id ?? newConversationId()
  const lane = laneKeyOf(body, conversation_id)
  if ('missing' in lane)
    problems.push({ path: path + lane.missing, message: `is needed by surface ${body.surface}` })
  if (problems.length > 0 || 'missing' in lane) throw invalid(problems)
  if (lane.laneKey.length > 600)
    throw invalid([{ path: `${path}lane_key`, message: 'is too long' }])
  await checkQueue(service, body.queue, path)
  const traceparent = traceparentOf(c)
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
      ...(body.callback_url ? { callback_url: body.callback_url } : {}),
      ...(traceparent === null ? {} : { traceparent }),
    },
  }
}

/** What is wrong with the input of a run of this agent, by paths from `input`. */
export function inputProblems(agent: AgentCard, input: unknown, outbound: Outbound): FieldError[] {
  if (agent.takes === 'script') return scriptProblems(input, outbound)
  return agent.takes === 'messages' ? messageProblems(input) : []
}

function problemOfCallback({ outbound, signsWebhooks }: Service, { callback_url }: RunBody) {
  if (!callback_url) return undefined
  return signsWebhooks
    ? outbound.refusal(callback_url)
    : 'needs RUNLANE_WEBHOOK_SECRET: its notices could not be signed'
}

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/

/** The trace that the caller wants the run to be part of. */
export function traceparentOf(c: Context): string | null {
  const traceparent = c.req.header('traceparent') ?? ''
  return TRACEPARENT.test(traceparent) ? traceparent : null
}

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
