import type { Hono } from 'hono'
import { schemaFits } from '../store/migrate.ts'
import { within } from '../within.ts'
import { getMetrics, healthz, readyz } from './contract/service.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

const TEXT = 'text/plain; version=0.0.4; charset=utf-8'

/** A probe that is answered later helps nobody: a database that has not answered by then counts as away. */
const DATABASE_MS = 2_000

/** For load balancers, whether the process is there and can do its work; for Prometheus, how it does it. */
export function probeRoutes(app: Hono, service: Service): void {
  const { node, reads, version, metrics } = service
  new Routes(app, service)
    .on(healthz, () => answer(200, { status: 'ok' as const, version }))
    .on(readyz, async () => {
      const fits = await within(DATABASE_MS, schemaFits(reads), () => {}).catch(() => null)
      const lease = node.lease.held
      const ready = fits === true && lease && node.status === 'serving'
      const status = ready ? ('ready' as const) : ('not_ready' as const)
      const checks = { database: fits !== null, migrations: fits === true, lease }
      return answer(ready ? 200 : 503, { status, ...checks, node: node.status })
    })
    .on(getMetrics, async ({ c }) => c.body(await metrics.scrape(), 200, { 'content-type': TEXT }))
}
