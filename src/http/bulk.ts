import type { Hono } from 'hono'
import { Refusal } from '../errors.ts'
import { type ResumeFacts, resumeBlocker } from '../runtime/run/resume.ts'
import {
  type BulkAction,
  type BulkFilter,
  type BulkRun,
  bulkRunsOf,
  orderBulk,
  previewBulk,
  resumesOf,
} from '../store/bulk.ts'
import { demand } from './access/identity.ts'
import { applied } from './audit.ts'
import { bulkRuns, type ResumeRefusal, RUNS_PER_BULK_MAX, RUNS_SHOWN_MAX } from './contract/bulk.ts'
import type { Answer } from './contract/endpoint.ts'
import { makingKey, onceMade } from './idempotency.ts'
import { carryOut } from './many.ts'
import { pageOf } from './page.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** What is ordered: decided once, so that a repetition under the same key is about the same runs. */
interface Plan {
  /** One after the other, as the runs of the second may go on when those of the first are gone. */
  waves: string[][]
  /** Runs that were named and that there are none of, for this caller. */
  unknown: string[]
  next_cursor: string | null
}

type BulkAnswer = Answer<typeof bulkRuns>

/** One action on the runs that fit a filter. */
export function bulkRoutes(app: Hono, service: Service): void {
  const { reads, node } = service

  new Routes(app, service).on(bulkRuns, async ({ c, identity, caller, body }) => {
    const { action, filter: given, reason, dry_run, cursor } = body
    // What one call may do to one run, this one may do to many, and nothing else.
    if (action === 'recycle') demand(identity, 'admin')
    const created_by = identity.role === 'service' ? identity.name : undefined
    const filter = { ...given, cursor, created_by }
    if (dry_run) return preview(action, filter)

    // Of a caller whose role has changed it is another request: what an operator has ordered no service goes on with.
    const key = makingKey(c, caller, { ...body, created_by: created_by ?? null })
    const act = async (plan: Plan) => {
      const unknown = new Set(plan.unknown)
      const waves = [...plan.waves, plan.unknown]
      const order = { kind: action, caller, reason, key }
      const results = await carryOut(service, waves, order, async (runId, keyed) => {
        if (unknown.has(runId)) throw new Refusal('not_found', `there is no run ${runId}`)
        return node.commands[action](runId, keyed, { reason })
      })
      const count = (outcome: string) => results.filter((one) => one.outcome === outcome).length
      return {
        ...{
          action,
          dry_run: false as const,
          applied: count('applied'),
          refused: count('refused'),
        },
        ...{ results, truncated: plan.next_cursor !== null, next_cursor: plan.next_cursor },
      }
    }
    return onceMade<BulkAnswer>(reads, key, {
      named: false,
      make: async () => {
        const plan = planOf(await bulkRunsOf(reads, action, filter, RUNS_PER_BULK_MAX + 1))
        const asked = { ...given, ...(given.run_ids ? { run_ids: given.run_ids.length } : {}) }
        const row = applied(caller, 'agent_runtime.bulk', 'runs that fit a filter', {
          before: { action, filter: asked as never },
          after: { runs: plan.waves.flat().length, next_cursor: plan.next_cursor },
        })
        if (!(await orderBulk(reads, { ...row, reason }, key, JSON.stringify(plan))))
          return 'repeated'
        return answer(200, await act(plan))
      },
      again: async (plan) =>
        answer(200, await act(JSON.parse(plan) as Plan), { 'Idempotent-Replayed': 'true' }),
    })
  })

  async function preview(action: BulkAction, filter: BulkFilter) {
    const { first, by_status } = await previewBulk(reads, action, filter, RUNS_SHOWN_MAX)
    const matched = Object.values(by_status).reduce((sum, runs) => sum + runs, 0)
    const run_ids = first.flatMap(({ run_id, status }) => (status === null ? [] : [run_id]))
    const truncated = matched > RUNS_PER_BULK_MAX
    const found = { action, dry_run: true as const, matched, by_status, run_ids, truncated }
    if (action !== 'resume') return answer(200, found)
    const rows = await resumesOf(reads, filter, RUNS_PER_BULK_MAX)
    return answer(200, { ...found, would_refuse: refusalsOf(rows) })
  }
}

/** How many of these runs a resume would be refused for, by its code. */
function refusalsOf(rows: ResumeFacts[]): Partial<Record<ResumeRefusal, number>> {
  const counts: Partial<Record<ResumeRefusal, number>> = {}
  for (const row of rows) {
    if (resumeBlocker(row) === null) continue
    // Nothing else is in the way where it could be resumed without them.
    const isAboutCalls = resumeBlocker({ ...row, unknown_calls: [] }) === null
    const code = isAboutCalls ? 'unknown_tool_call' : 'not_resumable'
    counts[code] = (counts[code] ?? 0) + 1
  }
  return counts
}

/** Those that wait in a lane go first: the end of the run before them would start them. */
function planOf(found: BulkRun[]): Plan {
  const { page, next_cursor } = pageOf(found, RUNS_PER_BULK_MAX, ({ run_id }) => run_id)
  const {
    waiting = [],
    other = [],
    unknown = [],
  } = Object.groupBy(page, ({ status }) => {
    if (status === null) return 'unknown'
    return status === 'waiting_on_lane' ? 'waiting' : 'other'
  })
  const waves = [waiting, other]
  return { waves: waves.map(idsOf), unknown: idsOf(unknown), next_cursor }
}

const idsOf = (runs: BulkRun[]): string[] => runs.map(({ run_id }) => run_id)
