import { setTimeout as pause } from 'node:timers/promises'
import { api, type Json, type Run } from './api.ts'
import type { Random } from './random.ts'
import { ADMIN_TOKEN } from './service.ts'

export type Effects = 'none' | 'idempotent' | 'unsafe'

/** One `http` step that a run of the load will make. */
export type PlannedCall = { readonly callId: string; readonly effects: Effects }

/** A run whose POST was acknowledged. */
export type LoadedRun = {
  readonly runId: string
  readonly label: string
  readonly lane: string
  readonly calls: readonly PlannedCall[]
  readonly steps: readonly string[]
}

/** What the effect server gets: enough to tell which call of which run it is. */
export type EffectBody = {
  readonly run: string
  readonly call: string
  readonly lane: string
  /** Calls of one batch may overlap. */
  readonly batch: string | null
  readonly delay_ms: number
}

export type LoadOptions = {
  /** Where to post; asked each time, since services move. */
  readonly urls: () => readonly string[]
  readonly effectUrl: string
  readonly random: Random
  readonly lanes?: number
  /** Between two posts of one poster, at most. */
  readonly everyMs?: number
  readonly posters?: number
}

export type Load = {
  readonly acknowledged: readonly LoadedRun[]
  /** Codes and counts of POST answers that were not 2xx, by `<status> <code>`. */
  readonly refusals: ReadonlyMap<string, number>
  /** The slowest POST that was answered, in milliseconds. */
  slowestPostMs(): number
  stop(): Promise<void>
}

/**
 * Posts runs with outside effects until it is stopped. Every other one carries an `Idempotency-Key` and is repeated
 * until it is acknowledged, the rest are posted once: whoever got no answer forgets them.
 */
export const startLoad = (options: LoadOptions): Load => {
  const { random, posters = 3, everyMs = 100 } = options
  const acknowledged: LoadedRun[] = []
  const refusals = new Map<string, number>()
  // Another load of the same seed is not this one.
  const tag = `${process.pid}-${random.int(1_000_000)}`
  let stopped = false
  let made = 0
  let slowest = 0

  const post = async (body: object, key: string | null): Promise<Run | undefined> => {
    const url = random.pick(options.urls())
    const sentAt = performance.now()
    const headers: Record<string, string> = key === null ? {} : { 'idempotency-key': key }
    const signal = AbortSignal.timeout(30_000)
    const answer = await api({ url, token: ADMIN_TOKEN })
      .request('POST', '/runs', { body, headers, signal })
      .catch(() => undefined)
    if (answer === undefined) return undefined
    slowest = Math.max(slowest, performance.now() - sentAt)
    if (answer.status === 202 || answer.status === 200) return answer.body
    const code = `${answer.status} ${answer.body?.code ?? ''}`
    refusals.set(code, (refusals.get(code) ?? 0) + 1)
    return undefined
  }
  const postOne = async (): Promise<void> => {
    made += 1
    const plan = planRun(options, `${tag}-${made}`)
    const key = random.chance(0.5) ? `chaos-${plan.label}` : null
    for (;;) {
      const run = await post(plan.body, key)
      if (run !== undefined) {
        acknowledged.push({ ...plan, runId: run.run_id })
        return
      }
      if (key === null || stopped) return
      await pause(50)
    }
  }
  const poster = async (): Promise<void> => {
    while (!stopped) {
      await postOne()
      await pause(random.int(everyMs))
    }
  }
  const running = Array.from({ length: posters }, poster)
  return {
    acknowledged,
    refusals,
    slowestPostMs: () => slowest,
    stop: async () => {
      stopped = true
      await Promise.all(running)
    },
  }
}

type Plan = Omit<LoadedRun, 'runId'> & { readonly body: object }

const EFFECTS: readonly Effects[] = ['unsafe', 'unsafe', 'idempotent', 'none']

/** A script of two to five steps, mostly calls to the outside. */
export const planRun = (
  { effectUrl, random, lanes = 12 }: Pick<LoadOptions, 'effectUrl' | 'random' | 'lanes'>,
  label: string,
): Plan => {
  const lane = `chaos:${random.int(lanes)}`
  const calls: PlannedCall[] = []
  const names: string[] = []
  const call = (batch: string | null): Json => {
    const callId = `c${calls.length + 1}`
    const effects = random.pick(EFFECTS)
    calls.push({ callId, effects })
    const body: EffectBody = { run: label, call: callId, lane, batch, delay_ms: random.int(60) }
    return { http: `${effectUrl}/${label}/${callId}`, effects, call_id: callId, body }
  }
  const step = (nth: number): Json => {
    const kind = random.int(10)
    if (kind < 5) return call(null)
    if (kind < 7)
      return { parallel: Array.from({ length: 2 + random.int(2) }, () => call(`b${nth}`)) }
    if (kind === 7) return { think: random.int(40) }
    if (kind === 8) return { journal: { next_action: `step ${nth}` } }
    names.push(`s${nth}`)
    return { step: `s${nth}`, ms: random.int(10), result: nth }
  }
  const steps = Array.from({ length: 2 + random.int(4) }, (_, nth) => step(nth))
  return {
    label,
    lane,
    calls,
    steps: names,
    body: { agent: 'scripted', lane_key: lane, input: { steps } },
  }
}
