import { setTimeout as delay } from 'node:timers/promises'
import type { RunMachine } from '../../machines/run.ts'
import { Refusal, type RefusalCode } from '../errors.ts'
import { newCommandId, newRecordId } from '../ids.ts'
import { hashJson, type Json } from '../json.ts'
import type { CallRow, CommandRow, HostedRow, WaitpointRow } from '../store/rows.ts'
import { restoreChart } from './codec.ts'
import type { Committer } from './committer.ts'
import { transitionOf } from './decide.ts'
import type { Mailroom } from './mailroom.ts'
import type { Resolution, RunMessage, UnknownCall } from './messages.ts'
import { checkedResolution } from './resolutions.ts'
import { resumeBlocker, unknownCalls } from './resume.ts'

export interface Caller {
  name: string
  role: string
  requestId: string | null
  /** Under which the same request counts once, and what the request was. */
  key?: { text: string; hash: string } | undefined
}

export interface CommandsOptions {
  machine: RunMachine
  committer: Committer
  mailroom: Mailroom
  loadRun(runId: string): Promise<HostedRow | undefined>
  loadCalls(runId: string): Promise<CallRow[]>
  loadWaitpoints(runId: string): Promise<WaitpointRow[]>
  findCommand: (commandId: string) => Promise<CommandRow | undefined>
  findKeyedCommand: (requestedBy: string, key: string) => Promise<CommandRow | undefined>
}

/** How long a caller waits for a written command to be brought to its run. */
const DELIVERY_MS = 2_000

export interface Reason {
  reason?: string | undefined
}

/**
 * Durable, audited requests to a run. A command is written first (it survives us), then brought to its run: in one step
 * where the run has no owner or is ours, by hint and poll where it is another node's. A command that cannot apply is
 * refused before it is written, and the refusal is audited.
 */
export class Commands {
  #options: CommandsOptions

  constructor(options: CommandsOptions) {
    this.#options = options
  }

  /** What this caller has asked for before under the same key. @throws Refusal idempotency_conflict */
  async earlier({ name, key }: Caller): Promise<CommandRow | undefined> {
    if (!key) return undefined
    const known = await this.#options.findKeyedCommand(name, key.text)
    if (!known || known.payload['request_hash'] === key.hash) return known
    throw new Refusal(
      'idempotency_conflict',
      'this Idempotency-Key came with another request before',
      { run_id: known.run_id },
    )
  }

  /** @throws Refusal not_found, not_cancellable */
  async cancel(runId: string, caller: Caller, { reason }: Reason): Promise<CommandRow> {
    const run = await this.#find(runId)
    const message: RunMessage = {
      type: 'cancel.requested',
      by: caller.name,
      reason: reason ?? null,
    }
    if (!this.#accepts(run, message)) {
      return this.#refuse(
        run,
        caller,
        'cancel',
        reason,
        'not_cancellable',
        `the run is ${run.status}`,
      )
    }
    return this.#submit(run, caller, { kind: 'cancel', payload: {}, reason })
  }

  /**
   * Puts a failed or timed-out run back in line, to go on from its records.
   * @throws Refusal not_found, not_resumable, unknown_tool_call (resolutions are missing)
   */
  async resume(
    runId: string,
    caller: Caller,
    { reason, resolutions = {} }: Reason & { resolutions?: Record<string, Resolution> | undefined },
  ): Promise<CommandRow> {
    const run = await this.#find(runId)
    const unknown = unknownCalls(await this.#options.loadCalls(runId))
    const open = unknown.filter((call) => !Object.hasOwn(resolutions, call.tool_call_id))
    const blocker = resumeBlocker({ ...run, unknown_calls: open.map((call) => call.tool_call_id) })
    if (blocker !== null) {
      const code =
        open.length > 0 && blocker.startsWith('unknown_tool_call')
          ? 'unknown_tool_call'
          : 'not_resumable'
      return this.#refuse(run, caller, 'resume', reason, code, blocker, { resume_blocker: blocker })
    }
    const known = new Set(unknown.map((call) => call.tool_call_id))
    const strange = Object.keys(resolutions).filter((id) => !known.has(id))
    if (strange.length > 0) {
      throw new Refusal(
        'validation_error',
        'resolutions name calls that are not of unknown outcome',
        {
          errors: strange.map((id) => ({
            path: `resolutions.${id}`,
            message: 'is not a call of unknown outcome',
          })),
        },
      )
    }
    const settled = unknown.map((call) => ({
      call: nameOf(call),
      resolution: resolutions[call.tool_call_id],
    }))
    return this.#submit(run, caller, {
      kind: 'resume',
      payload: { resolutions: settled as unknown as Json },
      reason,
    })
  }

  /**
   * Answers a question that a run waits on.
   * @throws Refusal not_found, not_waiting, ambiguous_answer (several questions, no `token_id`), validation_error
   */
  async respond(
    runId: string,
    caller: Caller,
    { answer, token_id }: { answer: Json; token_id?: string | undefined },
  ): Promise<CommandRow> {
    const run = await this.#find(runId)
    const pending = (await this.#options.loadWaitpoints(runId)).filter(
      (waitpoint) => waitpoint.status === 'pending',
    )
    if (run.status !== 'waiting_on_human' || pending.length === 0) {
      return this.#refuse(
        run,
        caller,
        'respond',
        undefined,
        'not_waiting',
        `the run is ${run.status} and asks nothing`,
      )
    }
    const [only] = pending
    const chosen =
      token_id === undefined && pending.length === 1
        ? only
        : pending.find((one) => one.token_id === token_id)
    if (!chosen) {
      const tokens = pending.map(({ token_id: id, prompt }) => ({ token_id: id, prompt }))
      const text =
        token_id === undefined
          ? 'the run asks several questions: name one by token_id'
          : 'no pending question has this token_id'
      return this.#refuse(run, caller, 'respond', undefined, 'ambiguous_answer', text, {
        questions: tokens,
      })
    }
    const resolution = checkedResolution(answer, chosen.kind)
    const call = (await this.#options.loadCalls(runId)).find(
      (one) => one.tool_call_id === chosen.tool_call_id,
    )
    const command = await this.#submit(run, caller, {
      kind: 'respond',
      payload: {
        token_id: chosen.token_id,
        resolution: resolution as unknown as Json,
        call:
          chosen.kind === 'unknown_tool_call' && call ? (nameOf(call) as unknown as Json) : null,
      },
      // Of two answers to one question the first one written counts.
      commandId: `cmd_${chosen.token_id}`,
    })
    if (hashJson(command.payload['resolution']) === hashJson(resolution)) return command
    return this.#refuse(
      run,
      caller,
      'respond',
      undefined,
      'not_waiting',
      'somebody else has answered this question',
    )
  }

  async #find(runId: string): Promise<HostedRow> {
    const run = await this.#options.loadRun(runId)
    if (!run) throw new Refusal('not_found', `there is no run ${runId}`)
    return run
  }

  #accepts(run: HostedRow, message: RunMessage): boolean {
    try {
      const chart = restoreChart(this.#options.machine, run)
      return transitionOf(this.#options.machine, chart, message) !== undefined
    } catch {
      // Chart and SQL disagree about this run: nothing may act on it, and `statechart` says so.
      return false
    }
  }

  async #submit(
    run: HostedRow,
    caller: Caller,
    command: {
      kind: string
      payload: Record<string, Json>
      reason?: string | undefined
      commandId?: string
    },
  ): Promise<CommandRow> {
    const command_id = command.commandId ?? newCommandId()
    const { committer, mailroom, findCommand } = this.#options
    await committer.command({
      command_id,
      run_id: run.run_id,
      kind: command.kind,
      payload: {
        ...command.payload,
        role: caller.role,
        request_id: caller.requestId,
        ...(caller.key ? { idempotency_key: caller.key.text, request_hash: caller.key.hash } : {}),
      },
      requested_by: caller.name,
      reason: command.reason ?? null,
    })
    // Written is written: while the database is slow or away, the caller gets 202 and the letter is delivered later.
    await Promise.race([
      mailroom.deliver(run.run_id),
      delay(DELIVERY_MS, undefined, { ref: false }),
    ])
    // The same request may have come twice at the same time: one of them was written.
    const written = (await this.earlier(caller)) ?? (await findCommand(command_id))
    return (
      written ?? {
        payload: command.payload,
        command_id,
        run_id: run.run_id,
        kind: command.kind,
        status: 'pending',
        outcome: null,
      }
    )
  }

  #refuse(
    run: HostedRow,
    caller: Caller,
    kind: string,
    reason: string | undefined,
    code: RefusalCode,
    message: string,
    details: Record<string, unknown> = {},
  ): never {
    this.#options.committer.audit(auditOf(run, caller, kind, reason, code))
    throw new Refusal(code, message, { run_id: run.run_id, run_status: run.status, ...details })
  }
}

const auditOf = (
  run: HostedRow,
  caller: Caller,
  kind: string,
  reason: string | undefined,
  code: string,
) => ({
  audit_key: newRecordId(),
  actor: caller.name,
  role: caller.role,
  action: `agent_runtime.${kind}`,
  target: run.run_id,
  run_id: run.run_id,
  reason: reason ?? null,
  outcome: 'refused' as const,
  code,
  request_id: caller.requestId,
})

const nameOf = ({ tool_call_id, position, tool }: CallRow): UnknownCall => ({
  tool_call_id,
  position,
  tool,
})
