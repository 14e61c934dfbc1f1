import { setTimeout as pause } from 'node:timers/promises'
import { expect } from 'vitest'
import { effectProblems, historyProblems, watchRecords } from './chaos-checks.ts'
import { answerUntilEnded, type Retries, startHuman } from './chaos-human.ts'
import { startLoad } from './chaos-load.ts'
import { startEffectServer } from './effect-server.ts'
import { seeded } from './random.ts'
import type { Service } from './service.ts'

/** Kills of one database's test in total. */
export const KILLS = Number(process.env['CHAOS_KILLS'] ?? 15)
/** The same seed repeats the same scripts and moments, though not the same races. */
export const SEED = Number(process.env['CHAOS_SEED'] ?? Date.now() % 1_000_000)

/** Beyond the questions, crash loops must not park what all those kills hit again and again. */
export const CHAOS_ENV = { RUNLANE_LEASE: '1s', RUNLANE_MAX_CRASHES: '1000' }

export type KillOptions = {
  /** Replicas on one database; each is killed in its turn, however the others fare. */
  readonly services: Service[]
  readonly kills: number
  readonly seed: number
  /** The longest life after the start line, in milliseconds; the shortest is 50. */
  readonly longestMs: number
  readonly posters: number
  readonly postEveryMs: number
  /** For everything to end after the last kill. */
  readonly endMs: number
}

/** `kill -9` at random moments under load, then all that a caller was promised. The services are left running. */
export const killUnderLoad = async (options: KillOptions): Promise<void> => {
  const { services, seed, endMs } = options
  const random = seeded(seed)
  const effects = await startEffectServer()
  const retries: Retries = new Map()
  const url = services[0]?.url ?? ''
  try {
    const load = startLoad({
      urls: () => services.map((service) => service.url),
      effectUrl: effects.url,
      random,
      everyMs: options.postEveryMs,
      posters: options.posters,
    })
    const watch = watchRecords(url, () => load.acknowledged, random)
    const careless = (key: string): boolean => key.endsWith('c1')
    const human = startHuman(() => load.acknowledged, { url, effects, retries, careless })
    await killAll(options)
    await load.stop()
    await human.stop()
    const ended = await answerUntilEnded(load.acknowledged, {
      url,
      effects,
      retries,
      timeoutMs: endMs,
    })
    await watch.stop()

    const { acknowledged: runs } = load
    const { recorded } = watch
    const shown = { seed, runs: runs.length, calls: effects.calls.length, recorded: recorded.size }
    console.info({ ...shown, retries: retries.size, refusals: Object.fromEntries(load.refusals) })
    expect(runs.length).toBeGreaterThan(options.kills)
    expect(recorded.size).toBeGreaterThan(options.kills / 4)
    expect(effectProblems({ runs, ended, effects, recorded, retries }), `seed ${seed}`).toEqual([])
    expect(await historyProblems(url, runs), `seed ${seed}`).toEqual([])
  } finally {
    await effects.close()
  }
}

const killAll = async ({ services, kills, seed, longestMs }: KillOptions): Promise<void> => {
  let left = kills
  const killOne = async (nth: number): Promise<void> => {
    const random = seeded(seed + 1 + nth)
    while (left > 0) {
      left -= 1
      await pause(50 + random.int(longestMs - 50))
      const service = services[nth] as Service
      await service.kill()
      services[nth] = await service.restart()
    }
  }
  await Promise.all(services.map((_, nth) => killOne(nth)))
}
