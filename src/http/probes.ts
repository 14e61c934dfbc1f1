import type { Hono } from 'hono'
import { logBounds } from '../store/events.ts'
import { getMetrics, healthz, readyz } from './contract/service.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

const TEXT = 'text/plain; version=0.0.4; charset=utf-8'

/** For load balancers, whether the process is there and can do its work; for Prometheus, how it does it. */
export function probeRoutes(app: Hono, service: Service): void {
  const { node, reads, version, metrics } = service
  new Routes(app, service)
    .on(healthz, () => answer(200, { status: 'ok' as const, version }))
    .on(readyz, async () => {
      const database = await logBounds(reads).then(
        () => true,
        () => false,
      )
      const lease = node.lease.held
      const ready = database && lease && node.status === 'serving'
      const status = ready ? ('ready' as const) : ('not_ready' as const)
      return answer(ready ? 200 : 503, { status, database, lease, node: node.status })
    })
    .on(getMetrics, async ({ c }) => c.body(await metrics.scrape(), 200, { 'content-type': TEXT }))
}
