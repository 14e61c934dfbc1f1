import type { Hono } from 'hono'
import { orderBulk } from '../store/bulk.ts'
import { stuckRunIds } from '../store/runs.ts'
import { applied } from './audit.ts'
import type { Answer } from './contract/endpoint.ts'
import { sweep } from './contract/runtime.ts'
import { makingKey, onceMade } from './idempotency.ts'
import { carryOut } from './many.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** Recycles every run that is stuck. One that has recovered or ended meanwhile is spared, and audited as refused. */
export function sweepRoute(app: Hono, service: Service): void {
  const { reads, node } = service

  new Routes(app, service).on(sweep, async ({ c, caller, body }) => {
    const { reason } = body
    const key = makingKey(c, caller, body)
    const act = async (stuck: string[]) => {
      const order = { kind: 'recycle', caller, reason, key }
      const results = await carryOut(service, [stuck], order, (runId, keyed) =>
        node.commands.recycle(runId, keyed, { reason }),
      )
      const run_ids = results.flatMap((one) => (one.outcome === 'applied' ? one.run_id : []))
      return { recycled: run_ids.length, run_ids }
    }
    return onceMade<Answer<typeof sweep>>(reads, key, {
      named: false,
      make: async () => {
        const stuck = await stuckRunIds(reads)
        const change = { before: { stuck: stuck.length }, after: { ordered: stuck.length } }
        const row = applied(caller, 'agent_runtime.sweep', 'all stuck runs', change)
        const audit = { ...row, reason: reason ?? null }
        if (!(await orderBulk(reads, audit, key, JSON.stringify(stuck)))) return 'repeated'
        return answer(200, await act(stuck))
      },
      again: async (stuck) =>
        answer(200, await act(JSON.parse(stuck) as string[]), { 'Idempotent-Replayed': 'true' }),
    })
  })
}
