import type { Context, Hono } from 'hono'
import { parseDuration } from '../duration.ts'
import { Refusal } from '../errors.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import type { Created, RunRequest } from '../runtime/commands/create.ts'
import { recordAudit } from '../store/audit.ts'
import { findRun, findRuns } from '../store/runs.ts'
import { refused } from './audit.ts'
import { invalid } from './body.ts'
import type { RunBody } from './contract/run-body.ts'
import { postRun, postRuns } from './contract/runs.ts'
import { commandKey, madeBefore, replayedHeader } from './idempotency.ts'
import { answer, Routes } from './routes.ts'
import { checkedRequest } from './run-request.ts'
import { toRun, toSummary } from './run-view.ts'
import type { Service } from './service.ts'

/** Posting runs, one or many. */
export function postingRoutes(app: Hono, service: Service): void {
  const { node, reads } = service
  new Routes(app, service)
    .on(postRun, async ({ c, caller, body }) => {
      const keys = keysOf(c, meaningOf(body), [''])
      const created = await post(caller, keys, async () => [
        await checkedRequest(service, c, body, ''),
      ])
      const run = await findRun(reads, created.run_ids[0] ?? '')
      if (!run) throw new Refusal('not_found', 'the run is gone')
      const headers = { Location: `/runs/${run.run_id}`, ...replayedHeader(created.replayed) }
      return answer(created.existing ? 200 : 202, toRun(run), headers)
    })
    .on(postRuns, async ({ c, caller, body: { runs } }) => {
      const suffixes = runs.map((_, index) => `#${index}`)
      const created = await post(caller, keysOf(c, runs.map(meaningOf), suffixes), async () => {
        const requests: RunRequest[] = []
        for (const [index, body] of runs.entries()) {
          const path = `runs[${index}].`
          if (body.lane_policy === 'coalesce') {
            const message = 'must not be coalesce in a batch'
            throw invalid([{ path: `${path}lane_policy`, message }])
          }
          requests.push(await checkedRequest(service, c, body, path))
        }
        return requests
      })
      const rows = await findRuns(reads, created.run_ids)
      const headers = replayedHeader(created.replayed)
      return answer(created.existing ? 200 : 202, { runs: rows.map(toSummary) }, headers)
    })

  /** What was posted before under these keys, else new runs; only those are checked: what is there stays good. */
  async function post(
    caller: Caller,
    keys: Keys | undefined,
    check: () => Promise<RunRequest[]>,
  ): Promise<Created> {
    const earlier = keys && (await madeBefore(reads, caller, keys))
    if (earlier) return { run_ids: earlier, existing: true, replayed: true }
    const requests = (await check()).map((request, nth) => ({
      ...request,
      // What a service may not cancel by its id, it may not end by way of its lane either.
      ...(caller.role === 'service' ? { only_own: true as const } : {}),
      ...(keys && {
        idempotency_key: keys.texts[nth] ?? null,
        options: { ...request.options, request_hash: keys.hash },
      }),
    }))
    return node.creator.create(requests, caller).catch(async (error: unknown) => {
      if (error instanceof Refusal && error.code === 'forbidden') {
        const run_id = String(error.details['run_id'])
        const row = refused(caller, 'run.lane_policy', run_id, error.code)
        await recordAudit(reads, { ...row, run_id })
      }
      throw error
    })
  }
}

/** The keys of the runs of one request, and what it asks for. */
interface Keys {
  texts: string[]
  hash: string
}

function keysOf(c: Context, meaning: object, suffixes: string[]): Keys | undefined {
  const key = commandKey(c, meaning)
  return key && { texts: suffixes.map((suffix) => `${key.text}${suffix}`), hash: key.hash }
}

/** The same for all spellings of a request: `60s` is `1m`, and a default is nothing. */
function meaningOf({
  timeouts,
  execution_timeout_override,
  hold_lane_on_human,
  ...body
}: RunBody): object {
  const { reasoning, tool, turn } = timeouts
  return {
    ...body,
    timeouts: [reasoning, tool, turn].map(inMs),
    execution_timeout_override: inMs(execution_timeout_override),
    hold_lane_on_human: hold_lane_on_human || null,
  }
}

const inMs = (duration: string | null | undefined): number | null =>
  duration ? parseDuration(duration) : null
