import { afterAll, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const service = await startService({
  databaseUrl,
  env: { RUNLANE_WATCHDOG_TOOL: '300ms', RUNLANE_WATCHDOG_INTERVAL: '50ms' },
})
afterAll(() => service.kill())
const { get, createRun } = api(service)

interface Shown extends Run {
  readonly subagents: Shown[]
}
const snapshot = async (query = '') =>
  (await get(`/api/v1/admin/agent-runtime/snapshot${query}`)).body
/** The trees of a snapshot by their names alone: `root(child(grandchild) other)`. */
const shape = (runs: Shown[]): string =>
  runs
    .map(({ metadata, subagents }) => {
      const below = subagents.length > 0 ? `(${shape(subagents)})` : ''
      return `${(metadata as { name?: string }).name ?? 'child'}${below}`
    })
    .join(' ')
const ids = (runs: Shown[]): string[] => runs.flatMap((run) => [run.run_id, ...ids(run.subagents)])

const THINK = { think: 600_000 }
const HANG = { tool: 'q', hang: true, effects: 'none' }
const child = (...steps: object[]) => ({ agent: 'scripted', input: { steps } })
const named = async (name: string, steps: object[]): Promise<Run> =>
  createRun(scripted(steps, { metadata: { name } }))
const running = (count: number) =>
  eventually(async () => {
    const { summary } = await snapshot()
    return summary.running === count
  })

test('a tree is where its worst run is, and what is cut off comes after it with those above it', async () => {
  await named('silent', [THINK])
  await running(1)
  // Its children: one that is well, one whose own child is stuck.
  await named('parent', [{ delegate_all: [child(THINK), child({ delegate: child(HANG) })] }])
  await running(5)
  await named('latest', [THINK])
  await running(6)
  const whole = await eventually(async () => {
    const shown = await snapshot()
    return shown.summary.stuck === 1 && shown
  })

  expect(shape(whole.runs)).toBe('parent(child(child) child) silent latest')
  const [parent] = whole.runs as Shown[]
  const [middle, well] = parent?.subagents ?? []
  const [stuck] = middle?.subagents ?? []
  expect(stuck?.stuck_reason).toBe('tool_call.timeout(300ms)')
  expect(whole.truncated).toBe(false)

  const cut = async (limit: number) => {
    const { runs, truncated, summary } = await snapshot(`?limit=${limit}`)
    expect(summary).toEqual(whole.summary)
    expect(truncated).toBe(limit < 6)
    expect(ids(runs)).toHaveLength(Math.min(limit, 6))
    return runs as Shown[]
  }
  // What is stuck comes first, and as many of those above it as there is room for.
  expect(ids(await cut(1))).toEqual([stuck?.run_id])
  expect(ids(await cut(2))).toEqual([middle?.run_id, stuck?.run_id])
  expect(ids(await cut(3))).toEqual([parent?.run_id, middle?.run_id, stuck?.run_id])
  expect(shape(await cut(4))).toBe('parent(child(child)) silent')
  expect(ids(await cut(5))).toContain(well?.run_id)
  expect(shape(await cut(6))).toBe(shape(whole.runs))
})
