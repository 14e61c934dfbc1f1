import { setTimeout as delay } from 'node:timers/promises'
import type { RunMachine } from '../../../machines/run.ts'
import { Refusal, type RefusalCode } from '../../errors.ts'
import { newCommandId } from '../../ids.ts'
import type { Json } from '../../json.ts'
import type { CommandDraft } from '../../store/flush.ts'
import type { CallRow, CommandRow, HostedRow, WaitpointRow } from '../../store/rows.ts'
import { restoreChart } from '../run/codec.ts'
import type { Caller } from './caller.ts'
import { refusedCommand, writtenCommand } from './command-audit.ts'
import { type Given, notRefused } from './given.ts'
import type { Committer } from '../commit/committer.ts'
import { transitionOf } from '../run/decide.ts'
import type { Mailroom } from './mailroom.ts'
import type { RunMessage } from '../run/messages.ts'

export interface CommandsOptions {
  machine: RunMachine
  committer: Committer
  mailroom: Mailroom
  loadRun(runId: string): Promise<HostedRow | undefined>
  loadCalls(runId: string): Promise<CallRow[]>
  loadWaitpoints(runId: string): Promise<WaitpointRow[]>
  findCommand: (commandId: string) => Promise<CommandRow | undefined>
  findKeyedCommand: (requestedBy: string, key: string) => Promise<CommandRow | undefined>
  /** After so long a cancel that its run does not come to is carried out by force. */
  cancelTimeoutMs: number
}

interface Command {
  kind: string
  payload: Record<string, Json>
  reason?: string | undefined
  commandId?: string
}

const NOT_APPLIED = { status: 'pending', outcome: null, replayed: false } as const

/** How long a caller waits for a written command to be brought to its run. */
const DELIVERY_MS = 2_000

/**
 * Where commands are written. A command is written first (it survives us), then brought to its run: in one step where the
 * run has no owner or is ours, by hint and poll where it is another node's. A command that cannot apply is refused before
 * it is written, and the refusal is audited.
 */
export class CommandDesk {
  readonly options: CommandsOptions

  constructor(options: CommandsOptions) {
    this.options = options
  }

  /** What this caller has asked for before under the same key. @throws Refusal idempotency_conflict, or as it was refused */
  async earlier({ name, key }: Caller): Promise<Given | undefined> {
    if (!key) return undefined
    const known = await this.options.findKeyedCommand(name, key.text)
    if (!known) return undefined
    if (known.payload['request_hash'] === key.hash) return { ...notRefused(known), replayed: true }
    throw new Refusal(
      'idempotency_conflict',
      'this Idempotency-Key came with another request before',
      { run_id: known.run_id },
    )
  }

  /** @throws Refusal not_found */
  async find(runId: string): Promise<HostedRow> {
    const run = await this.options.loadRun(runId)
    if (!run) throw new Refusal('not_found', `there is no run ${runId}`)
    return run
  }

  /** The chart of the run would take this message. */
  accepts(run: HostedRow, message: RunMessage): boolean {
    try {
      const chart = restoreChart(this.options.machine, run)
      return transitionOf(this.options.machine, chart, message) !== undefined
    } catch {
      // Chart and SQL disagree about this run: nothing may act on it, and `statechart` says so.
      return false
    }
  }

  /** Writes the command and brings it to its run. @throws Refusal where the run has moved on meanwhile */
  async submit(run: HostedRow, caller: Caller, command: Command): Promise<Given> {
    const command_id = command.commandId ?? newCommandId()
    const { kind, payload } = command
    const written = await this.#write(run, caller, command, { command_id })
    return written ?? { command_id, run_id: run.run_id, kind, payload, ...NOT_APPLIED }
  }

  /** The same for a command that is applied by being written; undefined when the run does not take it by then. */
  submitApplied(run: HostedRow, caller: Caller, command: Command): Promise<Given | undefined> {
    const command_id = newCommandId()
    const audit = writtenCommand(run, caller, command.kind, command_id)
    return this.#write(run, caller, command, { command_id, audit })
  }

  async #write(
    run: HostedRow,
    caller: Caller,
    command: Command,
    { command_id, audit }: Pick<CommandDraft, 'command_id' | 'audit'>,
  ): Promise<Given | undefined> {
    const { committer, mailroom, findCommand } = this.options
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
      ...(audit ? { audit } : {}),
    })
    // Written is written: while the database is slow or away, the caller gets 202 and the letter is delivered later.
    await Promise.race([
      mailroom.deliver(run.run_id),
      delay(DELIVERY_MS, undefined, { ref: false }),
    ])
    // The same request may have come twice at the same time: one of them was written.
    const written = (await this.earlier(caller)) ?? (await findCommand(command_id))
    return written && { ...notRefused(written), replayed: written.command_id !== command_id }
  }

  /** @throws Refusal always, after the refusal is audited */
  refuse(
    run: HostedRow,
    caller: Caller,
    kind: string,
    reason: string | undefined,
    code: RefusalCode,
    message: string,
    details: Record<string, unknown> = {},
  ): never {
    this.options.committer.audit(refusedCommand(run, caller, kind, reason, code))
    throw new Refusal(code, message, { run_id: run.run_id, run_status: run.status, ...details })
  }
}
