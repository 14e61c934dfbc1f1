import type { Hono } from 'hono'
import { Refusal } from '../errors.ts'
import { readSnapshot } from '../store/snapshot.ts'
import { findAgentRun, findRun, openRootsOf } from '../store/runs.ts'
import * as contract from './contract/runtime.ts'
import { answer, Routes } from './routes.ts'
import { toSummary } from './run-view.ts'
import { giveOnce } from './commands.ts'
import type { Service } from './service.ts'

/** The snapshot, and what operators do with what they see there. */
export function runtimeRoutes(app: Hono, service: Service): void {
  const { reads, snapshots, node } = service
  const { commands } = node
  const routes = new Routes(app, service)

  routes.on(contract.getSnapshot, async ({ query: { limit } }) => {
    const { runs, ...rest } = await readSnapshot(snapshots, limit)
    return answer(200, { ...rest, runs: nested(runs.map(toSummary)) })
  })

  routes.on(contract.stopRun, (asked) =>
    giveOnce(service, asked, async (caller) =>
      commands.cancel(await target(asked.params.conversation_id), caller, asked.body, 'stop'),
    ),
  )

  routes.on(contract.recycleRun, (asked) =>
    giveOnce(service, asked, async (caller) =>
      commands.recycle(await target(asked.params.conversation_id), caller, asked.body),
    ),
  )

  routes.on(contract.interruptSubagent, (asked) =>
    giveOnce(service, asked, (caller) =>
      commands.interrupt(asked.params.run_id, caller, asked.body),
    ),
  )

  /** A run by its id, or the one that a conversation means. @throws Refusal not_found, ambiguous_target */
  async function target(id: string): Promise<string> {
    const known = await findRun(reads, id)
    if (known) return known.run_id
    const roots = await openRootsOf(reads, id)
    const active = roots.filter((run) => run.owner_epoch !== null)
    if (active.length > 1) {
      throw new Refusal('ambiguous_target', 'the conversation has several active runs: name one', {
        run_ids: active.map((run) => run.run_id),
      })
    }
    // Where all of them are over, the newest one says so.
    const chosen = active[0] ?? roots[0] ?? (await findAgentRun(reads, id))
    if (!chosen)
      throw new Refusal('not_found', `there is no run or conversation ${id.slice(0, 64)}`)
    return chosen.run_id
  }
}

type Nested = ReturnType<typeof toSummary> & { subagents: Nested[] }

/**
 * Children under their parents, each run once; a child whose parent is not among them stands for itself. A tree is where the first
 * of its runs is, and so is each branch of it.
 */
function nested(runs: ReturnType<typeof toSummary>[]): Nested[] {
  const made = new Map<string, Nested>(runs.map((run) => [run.run_id, { ...run, subagents: [] }]))
  const roots: Nested[] = []
  const placed = new Set<Nested>()
  const place = (run: Nested): void => {
    if (placed.has(run)) return
    placed.add(run)
    const parent = run.parent_run_id === null ? undefined : made.get(run.parent_run_id)
    if (parent) place(parent)
    const beside = parent ? parent.subagents : roots
    beside.push(run)
  }
  for (const run of made.values()) place(run)
  return roots
}
