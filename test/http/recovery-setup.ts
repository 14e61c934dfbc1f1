import { inject, onTestFinished } from 'vitest'
import { type Api, api, type Run } from '../support/api.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { createDatabase } from '../support/postgres.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

export type Crashing = Api & {
  /** `kill -9`, then a new start with the same database. */
  crash(): Promise<void>
  end(): Promise<void>
}

/** A service that one kill hits in the middle of many runs: each test looks at a run of its own. */
export async function startCrashing(
  database: string,
  recovery: 'auto' | 'manual',
  more: Record<string, string> = {},
): Promise<Crashing> {
  const own = database === 'postgres' ? await createDatabase(inject('databaseUrl')) : undefined
  const env = { RUNLANE_LEASE: '1s', RUNLANE_RECOVERY: recovery, ...more }
  let service = await startService({ env, databaseUrl: own?.url })
  return {
    // The port stays the same, so the client goes on with the next process.
    ...api(service),
    crash: async () => {
      await service.kill()
      service = await service.restart()
    },
    end: async () => {
      await service.kill()
      await own?.drop()
    },
  }
}

/** A run, and the outside service that it alone calls. */
export interface Caught {
  run_id: string
  effects: EffectServer
  /** Of the calls that arrived, in their order. */
  paths(): string[]
}

/** A run that is in the middle of its nth call when this resolves. */
export async function caughtInCall(
  { createRun }: Api,
  steps: (url: string) => object[],
  calls: number,
  more: Record<string, unknown> = {},
): Promise<Caught> {
  const effects = await startEffectServer()
  const { run_id } = await createRun(scripted(steps(effects.url), more))
  await eventually(() => effects.calls.length === calls)
  return { run_id, effects, paths: () => effects.calls.map((call) => call.path) }
}

export const threeCalls = (kind: 'unsafe' | 'idempotent' | 'none') => (url: string) => [
  { http: `${url}/before`, body: { reply: 'recorded' } },
  { http: `${url}/unknown`, body: { hang: true }, effects: kind, call_id: 'charge' },
  { http: `${url}/after`, body: { reply: 'last' } },
]

export const parked = (run: Run): boolean => run.status === 'waiting_on_human'
export const timedOut = (run: Run): boolean => run.status === 'timed_out'

/** Closes it after the test that looks at it. */
export function lookAt(caught: Caught): Caught {
  onTestFinished(() => caught.effects.close())
  return caught
}
