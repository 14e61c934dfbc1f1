import { Hono } from 'hono'
import { logBounds } from '../store/events.ts'
import type { Service } from './service.ts'

/** For load balancers: is the process there, can it do its work. */
export function probeRoutes({ node, reads, version }: Service): Hono {
  const app = new Hono()
  app.get('/healthz', (c) => c.json({ status: 'ok', version }))
  app.get('/readyz', async (c) => {
    const database = await logBounds(reads).then(
      () => true,
      () => false,
    )
    const lease = node.lease.held
    const ready = database && lease && node.status === 'serving'
    return c.json(
      { status: ready ? 'ready' : 'not_ready', database, lease, node: node.status },
      ready ? 200 : 503,
    )
  })
  return app
}
