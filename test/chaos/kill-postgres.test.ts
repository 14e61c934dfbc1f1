import { expect, it } from 'vitest'
import { CHAOS_ENV, killUnderLoad, KILLS, SEED } from '../support/chaos-kills.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'

const databaseUrl = await freshDatabase()

// A dead node's runs wait for its lease there, so lives are long enough for some adoptions, short enough for others to be cut off.
it(`keeps every promise over ${KILLS} kills of two replicas at random moments on Postgres`, async () => {
  const services = [
    await startService({ databaseUrl, env: { ...CHAOS_ENV, RUNLANE_NODE_ID: 'a' } }),
    await startService({ databaseUrl, env: { ...CHAOS_ENV, RUNLANE_NODE_ID: 'b' } }),
  ]
  const load = { posters: 3, postEveryMs: 200 }
  await killUnderLoad({
    services,
    kills: KILLS,
    seed: SEED,
    longestMs: 2_500,
    endMs: 120_000,
    ...load,
  })
  for (const service of services) expect((await service.stop()).code).toBe(0)
}, 600_000)
