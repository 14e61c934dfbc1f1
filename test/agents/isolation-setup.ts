import { fileURLToPath } from 'node:url'
import { afterAll, expect } from 'vitest'
import { type Served, scripted, serve } from '../http/setup.ts'
import type { Run } from '../support/api.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'

const AGENTS = fileURLToPath(new URL('fixtures/isolation', import.meta.url))
/** More than there are shared threads on any machine: a run of code is never alone in its thread. */
const NEIGHBOURS = 9
/** Longer than a busy machine takes, shorter than anybody would call dead. */
const ANSWER_MS = 1_000

/** What became of the runs beside a deed. */
export type Neighbours = {
  /** Runs of code in shared threads. */
  readonly coded: readonly Run[]
}

export type Isolation = Served & {
  /**
   * Has `deed` done in the middle of other runs' calls, and answers its run as `until` found it (default: terminal).
   * Expects that the service answers all the while, and that every other run completes with each effect once.
   */
  beside(deed: Deed, options?: BesideOptions): Promise<Run & { readonly beside: Neighbours }>
}

export type Deed = { readonly agent?: string; readonly deed: string; readonly in: string }
export type BesideOptions = {
  /** What is done once the run is posted; answers the run when the deed has had its effect. */
  readonly follow?: (runId: string) => Promise<Run>
  /** The deed costs its thread: those who share it begin another attempt. */
  readonly costsThread?: boolean
}

/** A service with well-behaved and other agents, on a database of its own. Call it while tests are collected. */
export const serveIsolation = async (env: Record<string, string> = {}): Promise<Isolation> => {
  const effects = await startEffectServer()
  afterAll(() => effects.close())
  const served = await serve('postgres', { env: { RUNLANE_AGENTS: AGENTS, ...env } })
  const { service, createRun, waitForRun } = served
  let over = false
  void service.exited.then(() => {
    over = true
  })

  const beside: Isolation['beside'] = async ({ agent = 'rogue', ...input }, options = {}) => {
    const { follow = waitForRun, costsThread = false } = options
    const before = effects.calls.length
    const coded = await createAll(served, NEIGHBOURS, () => ({
      agent: 'neighbour',
      input: { url: effects.url },
    }))
    const scriptedRuns = await createAll(served, 3, () =>
      scripted(
        ['before', 'during', 'after'].map((path) => ({
          http: `${effects.url}/${path}`,
          body: { hang: path === 'during' },
          effects: 'idempotent',
        })),
      ),
    )
    const all = [...coded, ...scriptedRuns]
    const made = () => effects.calls.slice(before)
    await eventually(() => made().filter(({ path }) => path === '/during').length === all.length, {
      message: 'all neighbours being in the middle of a call',
    })

    const health = watchHealth(service.url)
    const run = await createRun({ agent, input }).then(({ run_id }) => follow(run_id))
    const ended = await eventually(
      async () => {
        effects.release()
        const runs = await Promise.all(all.map(({ run_id }) => served.run(run_id)))
        return runs.every(({ ended_at }) => ended_at !== null) && runs
      },
      { message: 'the end of all neighbours' },
    )
    expect(await health.slowest()).toBeLessThan(ANSWER_MS)
    expectUnharmed(ended, made(), costsThread ? NEIGHBOURS : 0)
    expect(over).toBe(false)
    return { ...run, beside: { coded: ended.slice(0, NEIGHBOURS) } } as Awaited<
      ReturnType<Isolation['beside']>
    >
  }
  return { ...served, beside }
}

const createAll = ({ createRun }: Served, count: number, body: () => unknown): Promise<Run[]> =>
  Promise.all(Array.from({ length: count }, () => createRun(body())))

/** `mayResume`: so many of the first runs may have lost an attempt with their thread. */
function expectUnharmed(
  runs: readonly Run[],
  calls: EffectServer['calls'],
  mayResume: number,
): void {
  expect(runs.map(({ status, error_message }) => error_message ?? status)).toEqual(
    runs.map(() => 'completed'),
  )
  expect(runs.slice(mayResume).map(({ attempt }) => attempt)).toEqual(
    runs.slice(mayResume).map(() => 1),
  )
  for (const { attempt } of runs) expect(attempt).toBeLessThanOrEqual(2)
  const ofKey = Map.groupBy(calls, ({ idempotencyKey }) => idempotencyKey)
  expect(ofKey.size).toBe(runs.length * 3)
  for (const run of runs) {
    const own = [...ofKey].filter(([key]) => key?.startsWith(run.run_id)).map(([, made]) => made)
    const times = own.map((made) => [made[0]?.path, made.length])
    // What was in flight when its thread ended is made again under the same key; nothing else is.
    expect(times).toEqual([
      ['/before', 1],
      ['/during', run.attempt],
      ['/after', 1],
    ])
  }
}

/** Asks for the health of the service again and again; `slowest` ends it and answers the longest time in milliseconds. */
function watchHealth(url: string): { slowest(): Promise<number> } {
  let over = false
  let slowest = 0
  const asking = (async () => {
    while (!over) {
      const from = performance.now()
      const response = await fetch(`${url}/healthz`)
      await response.arrayBuffer()
      slowest = Math.max(slowest, response.ok ? performance.now() - from : Number.POSITIVE_INFINITY)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })()
  return {
    slowest: async () => {
      over = true
      await asking
      return slowest
    },
  }
}

/** Why the second attempt of a run was opened. */
export const lossOf = async ({ events }: Served, { run_id }: Run): Promise<unknown> =>
  (await events(run_id))
    .filter(({ event_type }) => event_type === 'run_status_changed')
    .find(({ payload }) => payload.to === 'resuming')?.payload.detail
