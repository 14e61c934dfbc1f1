import { expect, it } from 'vitest'
import { CHAOS_ENV, killUnderLoad, KILLS, SEED } from '../support/chaos-kills.ts'
import { startService } from '../support/service.ts'

it(`keeps every promise over ${KILLS} kills at random moments on the embedded database`, async () => {
  const services = [await startService({ env: CHAOS_ENV })]
  const load = { posters: 8, postEveryMs: 50 }
  await killUnderLoad({
    services,
    kills: KILLS,
    seed: SEED,
    longestMs: 900,
    endMs: 120_000,
    ...load,
  })
  expect((await services[0]?.stop())?.code).toBe(0)
}, 600_000)
