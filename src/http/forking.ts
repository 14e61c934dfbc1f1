import type { Hono } from 'hono'
import { type FieldError, Refusal } from '../errors.ts'
import type { Json } from '../json.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import { checkEnvelope, forkDraft } from '../runtime/commands/fork.ts'
import { recordAudit } from '../store/audit.ts'
import { envelopeAt, findCheckpoint } from '../store/forks.ts'
import type { HostedRow } from '../store/rows.ts'
import { findRun, loadHosted } from '../store/runs.ts'
import { applied, refused } from './audit.ts'
import { invalid } from './body.ts'
import { forkRun } from './contract/runs.ts'
import { commandKey, madeBefore, replayedHeader } from './idempotency.ts'
import { answer, Routes } from './routes.ts'
import { inputProblems, traceparentOf } from './run-request.ts'
import { toRun } from './run-view.ts'
import type { Service } from './service.ts'

/** A new run from a checkpoint of another one. */
export function forkingRoutes(app: Hono, service: Service): void {
  const { node, reads } = service

  new Routes(app, service).on(forkRun, async ({ c, params, body, caller }) => {
    const { checkpoint_id, reason } = body
    // A field that is null means the same as one that is left out.
    const input = body.input ?? undefined
    const key = commandKey(c, body)
    // First of all: what it was forked from may be gone since, or have gone on.
    const earlier = key && (await madeBefore(reads, caller, { texts: [key.text], hash: key.hash }))
    if (earlier) return shown(earlier[0] ?? '', true)

    const source = await loadHosted(reads, params.run_id)
    if (!source) throw new Refusal('not_found', `there is no run ${params.run_id.slice(0, 64)}`)
    const checkpoint = await findCheckpoint(reads, source.run_id, checkpoint_id)
    if (!checkpoint)
      throw new Refusal(
        'not_found',
        `the run ${source.run_id} has no checkpoint ${checkpoint_id.slice(0, 100)}`,
      )
    await checkAgent(source, input)
    const envelope = await envelopeAt(reads, source.run_id, checkpoint.sequence)
    await audited(caller, source, reason, () => checkEnvelope(checkpoint, envelope))
    const draft = forkDraft(node.machine, {
      source,
      checkpoint,
      created_by: caller.name,
      idempotency_key: key?.text ?? null,
      request_hash: key?.hash ?? null,
      traceparent: traceparentOf(c),
      input,
      audit: (runId) => ({
        ...applied(caller, 'run.fork', source.run_id, {
          before: null,
          after: { run_id: runId, checkpoint_id },
        }),
        run_id: source.run_id,
        reason: reason ?? null,
      }),
    })
    const weight = 1000 + JSON.stringify([draft.input, draft.metadata]).length + envelope.bytes
    const created = await node.creator.fork(draft, weight)
    return shown(created.run_ids[0] ?? '', created.replayed)
  })

  async function shown(runId: string, replayed: boolean) {
    const run = await findRun(reads, runId)
    if (!run) throw new Refusal('not_found', 'the run is gone')
    const headers = { Location: `/runs/${run.run_id}`, ...replayedHeader(replayed) }
    return answer(replayed ? 200 : 202, toRun(run), headers)
  }

  /** @throws Refusal unknown_agent, validation_error */
  async function checkAgent(source: HostedRow, input: Json | undefined): Promise<void> {
    const agent = await service.agents.find(source.agent)
    if (!agent) {
      const message = await service.agents.whyUnknown(source.agent)
      throw new Refusal(
        'unknown_agent',
        `there is no agent ${source.agent} any more: it ${message}`,
      )
    }
    if (input === undefined) return
    const problems: FieldError[] = inputProblems(agent, input, service.outbound)
    if (problems.length > 0) throw invalid(problems)
  }

  /** A refusal leaves an audit row. */
  async function audited(
    caller: Caller,
    { run_id }: HostedRow,
    reason: string | undefined,
    check: () => void,
  ): Promise<void> {
    try {
      check()
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      const row = refused(caller, 'run.fork', run_id, error.code)
      await recordAudit(reads, { ...row, run_id, reason: reason ?? null })
      throw error
    }
  }
}
