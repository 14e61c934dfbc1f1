import type { Hono } from 'hono'
import {
  attemptHistory,
  lateResult,
  latestCheckpoint,
  listCheckpoints,
  logBounds,
  readRunEvents,
} from '../store/events.ts'
import { openDelegations } from '../store/delegations.ts'
import { waitFacts } from '../store/diagnosis.ts'
import { type CallRow, isTerminal } from '../store/rows.ts'
import { findJournal, listChildren, listRuns, loadCalls } from '../store/runs.ts'
import { Refusal } from '../errors.ts'
import { attemptsOf } from '../runtime/run/attempts.ts'
import { diagnose } from '../runtime/diagnosis/diagnosis.ts'
import { resumeBlocker } from '../runtime/run/resume.ts'
import { lowered } from './access/identity.ts'
import * as contract from './contract/runs.ts'
import { pageOf } from './page.ts'
import { answer, Routes } from './routes.ts'
import { previewOf } from './resume-preview.ts'
import { existing } from './run-of-path.ts'
import { toRun, toSummary } from './run-view.ts'
import type { Service } from './service.ts'
import { waitForRun } from './wait.ts'

/** What an operator wants to see of the envelope: work, not the bookkeeping of replay. */
const SHOWN_CALLS: ReadonlySet<string> = new Set(['tool', 'step', 'model'])

/** A row of the envelope without what only a replay needs. */
function toToolResult(row: CallRow) {
  const {
    args_hash: _hash,
    settled: _settled,
    begun_after: _begun,
    settled_after: _after,
    ...call
  } = row
  return { ...call, kind: call.kind as 'tool' }
}

/** Reading runs. */
export function runRoutes(app: Hono, service: Service): void {
  const { reads, node } = service
  new Routes(app, service)
    .on(contract.listRuns, async ({ query }) => {
      // Read before the rows: a stream from this cursor repeats what the rows hold already, and misses nothing.
      const { last: cursor } = await logBounds(reads)
      const { limit } = query
      const rows = await listRuns(reads, { ...query, limit: limit + 1 })
      const { page, next_cursor } = pageOf(rows, limit, ({ run_id }) => run_id)
      return answer(200, { runs: page.map(toSummary), next_cursor, cursor })
    })
    .on(contract.getRun, async ({ c, identity, params: { run_id }, query: { wait } }) => {
      const asked = { c, identity, run_id }
      const run = await waitForRun(service, asked, wait, (row) => isTerminal(row.status))
      return answer(200, toRun(run))
    })
    .on(contract.listRunEvents, async ({ c, identity, query }) => {
      const { cursor, after_sequence, visibility, limit } = query
      const { run_id, created_by } = await existing(service, c)
      const rows = await readRunEvents(reads, {
        run_id,
        afterSequence: Math.max(after_sequence, Number(cursor ?? 0)),
        visibility: lowered(visibility, identity, created_by === identity.name),
        limit: limit + 1,
      })
      const { page, next_cursor } = pageOf(rows, limit, (last) => last.sequence)
      const events = page.map(({ created_by: _creator, ...event }) => event)
      return answer(200, { events, next_cursor })
    })
    .on(contract.listCheckpoints, async ({ c, query: { cursor, limit } }) => {
      const { run_id } = await existing(service, c)
      const rows = await listCheckpoints(reads, run_id, Number(cursor ?? 0), limit + 1)
      const { page, next_cursor } = pageOf(rows, limit, (last) => last.sequence)
      return answer(200, { checkpoints: page, next_cursor })
    })
    .on(contract.listToolResults, async ({ c, query: { cursor, limit } }) => {
      const { run_id } = await existing(service, c)
      const calls = (await loadCalls(reads, run_id)).filter(
        (call) => SHOWN_CALLS.has(call.kind) && call.position > Number(cursor ?? 0),
      )
      const { page, next_cursor } = pageOf(calls, limit, ({ position }) => position)
      return answer(200, { tool_results: page.map(toToolResult), next_cursor })
    })
    .on(contract.listChildren, async ({ c, query: { cursor, limit } }) => {
      const { run_id } = await existing(service, c)
      const rows = await listChildren(reads, run_id, cursor, limit + 1)
      const { page, next_cursor } = pageOf(rows, limit, (last) => last.run_id)
      return answer(200, { children: page.map(toSummary), next_cursor })
    })
    .on(contract.getJournal, async ({ c }) => {
      const { run_id, conversation_id, parent_run_id } = await existing(service, c)
      const journal_key = parent_run_id === null ? conversation_id : run_id
      const empty = { journal_key, content: {}, run_id: null, updated_at: null }
      return answer(200, (await findJournal(reads, journal_key)) ?? empty)
    })
    .on(contract.listAttempts, async ({ c, query: { cursor, limit } }) => {
      const { run_id } = await existing(service, c)
      const all = attemptsOf(await attemptHistory(reads, run_id))
      const later = all.filter(({ attempt }) => attempt > Number(cursor ?? 0))
      const { page, next_cursor } = pageOf(later, limit, (last) => last.attempt)
      return answer(200, { attempts: page, next_cursor })
    })
    .on(contract.getDiagnosis, async ({ params: { run_id } }) => {
      const found = await diagnose(run_id, {
        read: (id) => waitFacts(reads, id),
        rules: node.rules,
      })
      if (!found) throw new Refusal('not_found', `there is no run ${run_id.slice(0, 64)}`)
      return answer(200, found)
    })
    .on(contract.previewResume, async ({ c }) => {
      const run = await existing(service, c)
      const { run_id } = run
      const [calls, delegations, checkpoint, late] = await Promise.all([
        loadCalls(reads, run_id),
        openDelegations(reads, run_id),
        latestCheckpoint(reads, run_id),
        isTerminal(run.status) ? lateResult(reads, run_id) : null,
      ])
      const blocker = resumeBlocker(run)
      return answer(200, {
        resume_available: blocker === null,
        resume_blocker: blocker,
        checkpoint: checkpoint ?? null,
        late_result: late ?? null,
        ...previewOf(calls, delegations),
      })
    })
}
