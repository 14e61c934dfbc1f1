/** What operators open when somebody says that an agent is stuck: all that runs, why it waits, and how to end it. */
import { z } from 'zod'
import { endpoint } from './endpoint.ts'
import { commanded, node, runSummary } from './objects.ts'
import { integer, reason, time, wait } from './values.ts'

const BASE = '/api/v1/admin/agent-runtime'
const text = z.string()
const count = z.number().int()
const SNAPSHOT_MAX = 5_000

type SnapshotRun = z.output<typeof runSummary> & { subagents: SnapshotRun[] }
const snapshotRun: z.ZodType<SnapshotRun, SnapshotRun> = z
  .object({ ...runSummary.shape, subagents: z.array(z.lazy(() => snapshotRun)) })
  .meta({ id: 'SnapshotRun' })

export const getSnapshot = endpoint({
  id: 'getSnapshot',
  method: 'GET',
  path: `${BASE}/snapshot`,
  tag: 'Administration',
  role: 'admin',
  does: 'all unfinished runs of all nodes in one consistent read, stuck first, then orphans, then the most silent; children nested, and each tree where its worst run is; `limit` counts rows, children too: the worst runs, and those above them as far as they fit',
  query: z.strictObject({ limit: integer(1, SNAPSHOT_MAX).default(SNAPSHOT_MAX) }),
  answers: {
    200: z
      .object({
        summary: z.object({
          running: count.meta({ description: 'active runs, children too' }),
          stuck: count,
          orphan: count,
          queued: count.meta({ description: 'queued and waiting_on_lane' }),
          parked: count.meta({ description: 'waiting_on_human' }),
          subagents_active: count,
        }),
        runs: z.array(snapshotRun),
        truncated: z
          .boolean()
          .meta({ description: 'there are more runs than `limit`; the counts are whole' }),
        nodes: z.array(node),
        cursor: count.meta({ description: 'for an event stream that goes on from here' }),
        timestamp: time,
      })
      .meta({ id: 'Snapshot' }),
  },
})

const target = { refuses: ['ambiguous_target'] } as const

export const stopRun = endpoint({
  id: 'stopRun',
  method: 'POST',
  path: `${BASE}/runs/{conversation_id}/stop`,
  tag: 'Administration',
  role: 'admin',
  audits: 'agent_runtime.stop',
  does: 'soft stop of the active run of a conversation (or of a run, by its id): it ends its current step, then exits; `?wait=5s` for the terminal state',
  keyed: true,
  query: z.strictObject({ wait }),
  body: z.strictObject({ reason }),
  answers: { 202: commanded },
  refuses: ['not_cancellable', ...target.refuses],
})

export const recycleRun = endpoint({
  id: 'recycleRun',
  method: 'POST',
  path: `${BASE}/runs/{conversation_id}/recycle`,
  tag: 'Administration',
  role: 'admin',
  audits: 'agent_runtime.recycle',
  does: 'ends a stuck run by force: its executor is killed, its lane freed, it has `failed`; `{"force": true}` one that is not stuck; `?wait=5s` for the terminal state',
  keyed: true,
  query: z.strictObject({ wait }),
  body: z.strictObject({ reason, force: z.boolean().optional() }),
  answers: { 202: commanded },
  refuses: ['not_stuck', ...target.refuses],
})

export const interruptSubagent = endpoint({
  id: 'interruptSubagent',
  method: 'POST',
  path: `${BASE}/subagents/{run_id}/interrupt`,
  tag: 'Administration',
  role: 'admin',
  audits: 'agent_runtime.interrupt_subagent',
  does: 'cancels one child run alone; its parent gets `delegation_cancelled` and decides how to go on; `?wait=5s` for the terminal state of the child',
  keyed: true,
  query: z.strictObject({ wait }),
  body: z.strictObject({ reason }),
  answers: { 202: commanded },
  refuses: ['not_a_subagent', 'not_cancellable'],
})

export const sweep = endpoint({
  id: 'sweep',
  method: 'POST',
  path: `${BASE}/sweep`,
  tag: 'Administration',
  role: 'admin',
  audits: 'agent_runtime.sweep',
  does: 'recycles every stuck run',
  keyed: true,
  body: z.strictObject({ reason }),
  answers: { 200: z.object({ recycled: count, run_ids: z.array(text) }) },
})
