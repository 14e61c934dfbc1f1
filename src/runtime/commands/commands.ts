import { Refusal, type RefusalCode } from '../../errors.ts'
import { formatDuration } from '../../duration.ts'
import { hashJson, type Json, OUTPUT_BYTES_MAX } from '../../json.ts'
import { type CallRow, type HostedRow, isTerminal } from '../../store/rows.ts'
import type { Caller } from './caller.ts'
import { CommandDesk, type CommandsOptions } from './command-desk.ts'
import type { Given } from './given.ts'
import type { Resolution, RunMessage, UnknownCall } from '../run/messages.ts'
import { checkedResolution } from './resolutions.ts'
import { resumeBlocker, unknownCalls } from '../run/resume.ts'

export type { Caller } from './caller.ts'

export interface Reason {
  reason?: string | undefined
}

/** Durable, audited requests to a run. Each is refused too where the run has moved on before the command came to it. */
export class Commands {
  #desk: CommandDesk

  constructor(options: CommandsOptions) {
    this.#desk = new CommandDesk(options)
  }

  /** What this caller has asked for before under the same key. @throws Refusal idempotency_conflict, or as it was refused */
  earlier(caller: Caller): Promise<Given | undefined> {
    return this.#desk.earlier(caller)
  }

  /** @throws Refusal not_found, not_cancellable */
  async cancel(
    runId: string,
    caller: Caller,
    { reason }: Reason,
    kind: 'cancel' | 'stop' | 'interrupt' = 'cancel',
  ): Promise<Given> {
    const run = await this.#desk.find(runId)
    const message: RunMessage = {
      type: 'cancel.requested',
      by: caller.name,
      reason: reason ?? null,
    }
    if (!this.#desk.accepts(run, message)) {
      return this.#desk.refuse(
        run,
        caller,
        kind,
        reason,
        'not_cancellable',
        `the run is ${run.status}`,
      )
    }
    return this.#desk.submit(run, caller, { kind, payload: {}, reason })
  }

  /**
   * Cancels a child run alone: its parent is told, and goes on as its code decides.
   * @throws Refusal not_found, not_a_subagent, not_cancellable
   */
  async interrupt(runId: string, caller: Caller, { reason }: Reason): Promise<Given> {
    const run = await this.#desk.find(runId)
    if (run.parent_run_id !== null) return this.cancel(runId, caller, { reason }, 'interrupt')
    const text = 'no run has delegated it: it is cancelled or stopped'
    return this.#desk.refuse(run, caller, 'interrupt', reason, 'not_a_subagent', text)
  }

  /**
   * Ends a stuck run by force: its executor is killed, its lane freed, it has failed. `force`: an active run that is not
   * stuck as well. @throws Refusal not_found, not_stuck
   */
  async recycle(
    runId: string,
    caller: Caller,
    { reason, force = false }: Reason & { force?: boolean | undefined },
  ): Promise<Given> {
    const run = await this.#desk.find(runId)
    const message: RunMessage = { type: 'run.recycled', forced: force, by: caller.name }
    if (!this.#desk.accepts(run, message)) {
      const { cancelTimeoutMs } = this.#desk.options
      const text = force
        ? `the run is ${run.status}: nothing of it is active that could be ended by force`
        : `the run is ${run.status} and not stuck${endOfItself(run, cancelTimeoutMs)}; {"force": true} ends an active run all the same`
      return this.#desk.refuse(run, caller, 'recycle', reason, 'not_stuck', text)
    }
    return this.#desk.submit(run, caller, { kind: 'recycle', payload: { force }, reason })
  }

  /** Gives the turns of an active run more time. @throws Refusal not_found, not_active */
  async extend(
    runId: string,
    caller: Caller,
    { by_ms, reason }: Reason & { by_ms: number },
  ): Promise<Given> {
    const run = await this.#desk.find(runId)
    if (!this.#desk.accepts(run, { type: 'turn.extended', by_ms })) {
      const text = `the run is ${run.status}: it has no turn that could go on`
      return this.#desk.refuse(run, caller, 'extend', reason, 'not_active', text)
    }
    return this.#desk.submit(run, caller, { kind: 'extend', payload: { by_ms }, reason })
  }

  /**
   * Puts a failed or timed-out run back in line, to go on from its records.
   * @throws Refusal not_found, not_resumable, unknown_tool_call (resolutions are missing)
   */
  async resume(
    runId: string,
    caller: Caller,
    { reason, resolutions = {} }: Reason & { resolutions?: Record<string, Resolution> | undefined },
  ): Promise<Given> {
    const run = await this.#desk.find(runId)
    const unknown = unknownCalls(await this.#desk.options.loadCalls(runId))
    const open = unknown.filter((call) => !Object.hasOwn(resolutions, call.tool_call_id))
    const blocker = resumeBlocker({ ...run, unknown_calls: open.map((call) => call.tool_call_id) })
    if (blocker !== null) {
      const code =
        open.length > 0 && blocker.startsWith('unknown_tool_call')
          ? 'unknown_tool_call'
          : 'not_resumable'
      return this.#desk.refuse(run, caller, 'resume', reason, code, blocker, {
        resume_blocker: blocker,
      })
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
    return this.#desk.submit(run, caller, {
      kind: 'resume',
      payload: { resolutions: settled as unknown as Json },
      reason,
    })
  }

  /**
   * Sends something to the code of a run: kept until it asks for a signal of this name.
   * @throws Refusal not_found, not_active (the run ends, or has), too_many_signals, validation_error
   */
  async signal(
    runId: string,
    caller: Caller,
    { name, data = null }: { name: string; data?: Json | undefined },
  ): Promise<Given> {
    const size = Buffer.byteLength(JSON.stringify(data))
    if (size > OUTPUT_BYTES_MAX) {
      const message = `is larger than ${OUTPUT_BYTES_MAX} bytes of JSON`
      const errors = [{ path: 'data', message }]
      throw new Refusal('validation_error', `data ${message}`, { errors })
    }
    const run = await this.#desk.find(runId)
    const command = { kind: 'signal', payload: { name, data } }
    const isRead = ({ status }: HostedRow) => !isTerminal(status) && status !== 'cancel_requested'
    const written = isRead(run) && (await this.#desk.submitApplied(run, caller, command))
    if (written) return written
    const now = await this.#desk.find(runId)
    const refuse = (code: RefusalCode, text: string) =>
      this.#desk.refuse(now, caller, 'signal', undefined, code, text)
    if (!isRead(now)) return refuse('not_active', `the run is ${now.status}: it reads no signals`)
    return refuse('too_many_signals', 'the run has 1,000 signals that it has not read')
  }

  /**
   * Answers a question that a run waits on.
   * @throws Refusal not_found, not_waiting, ambiguous_answer (several questions, no `token_id`), waits_for_signal,
   *   validation_error
   */
  async respond(
    runId: string,
    caller: Caller,
    { answer, token_id }: { answer: Json; token_id?: string | undefined },
  ): Promise<Given> {
    const run = await this.#desk.find(runId)
    const pending = (await this.#desk.options.loadWaitpoints(runId)).filter(
      (waitpoint) => waitpoint.status === 'pending',
    )
    if (run.status !== 'waiting_on_human' || pending.length === 0) {
      return this.#desk.refuse(
        run,
        caller,
        'respond',
        undefined,
        'not_waiting',
        `the run is ${run.status} and asks nothing`,
      )
    }
    const [only] = pending
    if (only?.kind === 'signal') {
      const names = pending.map(({ name }) => name)
      const text = `the run asks nothing and waits for a signal: POST /runs/${runId}/signal {"name": ${JSON.stringify(only.name)}}`
      return this.#desk.refuse(run, caller, 'respond', undefined, 'waits_for_signal', text, {
        signals: names,
      })
    }
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
      return this.#desk.refuse(run, caller, 'respond', undefined, 'ambiguous_answer', text, {
        questions: tokens,
      })
    }
    const resolution = checkedResolution(answer, chosen.kind)
    const call = (await this.#desk.options.loadCalls(runId)).find(
      (one) => one.tool_call_id === chosen.tool_call_id,
    )
    const command = await this.#desk.submit(run, caller, {
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
    return this.#desk.refuse(
      run,
      caller,
      'respond',
      undefined,
      'not_waiting',
      'somebody else has answered this question',
    )
  }
}

/** When a run that was asked to cancel comes to its end without anybody's help. */
function endOfItself(run: HostedRow, cancelTimeoutMs: number): string {
  if (run.status !== 'cancel_requested' || run.cancel_requested_at === null) return ''
  const limit = formatDuration(cancelTimeoutMs)
  const asked = new Date(run.cancel_requested_at)
  const end = new Date(asked.getTime() + cancelTimeoutMs).toISOString()
  const when =
    run.children === 0
      ? `by ${end}`
      : `${limit} after the last of the runs that it has delegated has ended, and not before ${end}`
  return `: it was asked to cancel at ${asked.toISOString()} and is ended hard if it does not end by itself, ${when} (RUNLANE_CANCEL_TIMEOUT, ${limit})`
}

const nameOf = ({ tool_call_id, position, tool }: CallRow): UnknownCall => ({
  tool_call_id,
  position,
  tool,
})
