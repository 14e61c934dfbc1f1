import { runMachine, type RunMachine } from '../../../machines/run.ts'
import { RUN_EFFECTS, type RunEffect, type RunFact } from '../../../machines/run-setup.ts'
import { newRecordId } from '../../ids.ts'
import type { RunRecord } from '../../store/flush.ts'
import { isTerminal, type HostedRow, type RowClock, type RunStatus } from '../../store/rows.ts'
import { encodeChart, restoreChart, statusOf, type RunSnapshot } from './codec.ts'
import { endOfCancel } from './cancelled.ts'
import { auditedRun } from './audited.ts'
import { transitionOf } from './decide.ts'
import { FACTS } from './facts.ts'
import { RecordDraft, type RunFields } from './record-draft.ts'
import { resumeBlocker } from './resume.ts'
import type { Letter, RunMessage } from './messages.ts'

interface State {
  chart: RunSnapshot
  fields: RunFields
  sequence: number
  version: number
}

/**
 * One run's decisions on their way into the database. It holds the chart, applies messages to it, and gathers what they
 * decided into the next record. Memory runs ahead of the disk by that one record and the one in flight, no more.
 */
export class Ledger extends RecordDraft {
  #machine: RunMachine
  #ownerEpoch: number | null
  #version: number
  /** What the database has: the state to fall back to when a record is refused for its data. */
  #base: State
  /** The state that the record in flight leads to. */
  #taken: State

  constructor(row: HostedRow, chart: RunSnapshot, machine: RunMachine = runMachine) {
    super(row, chart)
    this.#machine = machine
    this.#ownerEpoch = row.owner_epoch
    this.#version = row.version
    this.#base = this.#state()
    this.#taken = this.#base
  }

  /** @throws when the row's chart and the decisions of SQL disagree. */
  static restore(row: HostedRow, machine: RunMachine = runMachine): Ledger {
    return new Ledger(row, restoreChart(machine, row), machine)
  }

  /** Something is decided that no record in flight holds. */
  get dirty(): boolean {
    return this.draft !== null
  }

  /** All that was decided is in the database, and what follows from it has begun. */
  get isSettled(): boolean {
    return !this.dirty && this.#taken === this.#base
  }

  /** The chart would take the last of these messages, after those before it. */
  accepts(messages: readonly RunMessage[]): boolean {
    let { chart } = this
    let decision: ReturnType<typeof transitionOf>
    for (const message of messages) {
      decision = transitionOf(this.#machine, chart, message)
      chart = decision?.next ?? chart
    }
    return decision !== undefined
  }

  /**
   * Messages that are one decision: what is audited of any of them is the change that all of them make. Answers the effects,
   * or undefined when the chart does not accept the last one.
   */
  decideAll(messages: readonly RunMessage[]): RunEffect[] | undefined {
    const audited = this.draft?.audits.length ?? 0
    const shownBefore = this.#shown()
    const decisions = messages.map((message) => this.decide(message))
    this.#completeAudits(audited, shownBefore)
    return decisions.at(-1) && decisions.flatMap((effects) => effects ?? [])
  }

  /** Decides; answers the effects to perform after the commit, or undefined when the chart does not accept the message. */
  decide(message: RunMessage): RunEffect[] | undefined {
    const decision = transitionOf(this.#machine, this.chart, message)
    if (!decision) return undefined
    const from = this.status
    const before = this.chart
    const shownBefore = this.#shown()
    const audited = this.draft?.audits.length ?? 0
    this.chart = decision.next
    const effects: RunEffect[] = []
    for (const action of decision.actions) {
      if (isEffect(action)) effects.push(action)
      else FACTS[action as RunFact](this, message)
    }
    // A run that has ended has nothing more to tell: who ended it comes before.
    if (message.letter) {
      // What only force made possible is audited as such.
      const forced = message.type === 'run.recycled' && before.context.stuck_clock === null
      this.settleLetter(message.letter, 'applied', this.status, forced ? 'forced' : null)
    }
    this.#changeStatus(from, this.status, message)
    if (from === 'waiting_on_human' && isTerminal(this.status)) this.withdrawQuestions()
    // Nobody waits for them any more, however it came to its end.
    if (before.context.children > 0 && isTerminal(this.status) && !this.#mayGoOn(message))
      this.cascade(this.runId, `the run that delegated it is ${this.status}`)
    // A decision without an event of its own (lost while resuming: resuming again) is a decision all the same.
    if (effects.length > 0 || !sameChart(before, this.chart)) this.open()
    this.fields.stuck_reason = this.chart.context.stuck_reason
    if (this.draft && !OBSERVATIONS.has(message.type)) this.draft.progress = true
    this.#completeAudits(audited, shownBefore)
    return effects
  }

  /** Consumes an inbox letter; a refused one changes nothing else about the run, and tells nothing of one that has ended. */
  settleLetter(
    letter: Letter,
    status: 'applied' | 'refused',
    outcome: string,
    code: string | null = status === 'refused' ? 'not_possible' : null,
  ): void {
    const { outcomes, consumed, audits } = this.open()
    consumed.push({ run_id: this.runId, dedupe_key: letter.dedupe_key })
    if (letter.command_id === null) return
    const { command_id } = letter
    outcomes.push({ run_id: this.runId, command_id, status, outcome })
    audits.push({
      ...letter.audit,
      audit_key: command_id,
      target: this.runId,
      run_id: this.runId,
      outcome: status,
      code,
      before: this.#shown(),
      after: null,
    })
    if (status === 'refused' && isTerminal(this.status)) return
    const { actor: by, reason } = letter.audit
    this.event('command_applied', 1, { command_id, kind: letter.kind, by, reason, status, outcome })
  }

  /**
   * Takes the record that is due, with the clock that counts for its run, if one does. Version and sequence go on from it,
   * whatever becomes of it.
   */
  take(clock: RowClock | null = null): RunRecord {
    const { joinsFrom, progress, ...rows } = this.open()
    this.draft = null
    const { status, fields } = this
    const { context } = this.chart
    const before = this.#base.chart
    const releases = this.#ownerEpoch !== null && !this.chart.hasTag('active')
    const record: RunRecord = {
      change: {
        run_id: this.runId,
        owner_epoch: this.#ownerEpoch,
        version: this.#version,
        record_id: newRecordId(),
        last_sequence: this.sequence,
        status,
        detail: fields.detail,
        holds_lane: context.holds_lane,
        attempt: context.attempt,
        chart: sameChart(this.chart, before) ? null : encodeChart(this.chart),
        releases,
        joins_from: joinsFrom,
        frees_lane: before.context.holds_lane && !context.holds_lane,
        ends: isTerminal(status),
        cancel_requested: fields.cancel_requested,
        phase: fields.phase,
        saying: fields.saying,
        tool: fields.tool,
        error_code: fields.error_code,
        error_message: fields.error_message,
        checkpoint_id: fields.checkpoint_id,
        checkpoint_type: fields.checkpoint_type,
        stuck_reason: fields.stuck_reason,
        turn_extended_ms: fields.turn_extended_ms,
        children: fields.children,
        progress,
        clock,
        model: fields.model,
        input_tokens: fields.input_tokens,
        output_tokens: fields.output_tokens,
      },
      ...rows,
    }
    this.#version += 1
    if (releases) this.#ownerEpoch = null
    this.#taken = this.#state()
    return record
  }

  /** The record taken last is in the database. */
  settle(): void {
    this.#base = this.#taken
  }

  /** Back to what the database has: the record taken last was refused for its data. */
  revert(): void {
    this.chart = this.#base.chart
    Object.assign(this.fields, this.#base.fields)
    this.sequence = this.#base.sequence
    this.#version = this.#base.version
    this.#taken = this.#base
    this.#ownerEpoch = this.row.owner_epoch
    this.draft = null
  }

  /** What the audit rows of one decision, those after the first `count`, say that it has changed. */
  #completeAudits(count: number, before: ReturnType<typeof auditedRun>): void {
    const rows = this.draft?.audits ?? []
    if (rows.length === count) return
    const after = this.#shown()
    for (const row of rows.slice(count))
      Object.assign(row, { before, after: row.outcome === 'refused' ? null : after })
  }

  /** It was lost, and is offered to be resumed: then it waits on for what it has delegated. */
  #mayGoOn(message: RunMessage): boolean {
    if (message.type !== 'attempt.lost' || message.forced) return false
    const { row, status, fields } = this
    return resumeBlocker({ ...row, ...fields, status, unknown_calls: [] }) === null
  }

  #shown(): ReturnType<typeof auditedRun> {
    return auditedRun({ ...this.fields, status: this.status, attempt: this.chart.context.attempt })
  }

  #changeStatus(from: RunStatus, to: RunStatus, message: RunMessage): void {
    if (from === to) return
    // Only what it has come to by a call is told of already; what was said before is over.
    const isCalling = to === 'waiting_on_tool' || (to === 'waiting_on_child' && from === 'running')
    if (!isCalling) this.fields.phase = null
    if (to !== 'waiting_on_tool') this.fields.tool = null
    // SQL settles whether the run gets the turn of its lane at once, and tells which of the two it became.
    if (to === 'waiting_on_lane') {
      this.open().joinsFrom = from
      return
    }
    const { detail } = this.fields
    const more = to === 'cancelled' ? endOfCancel(message) : {}
    this.event('run_status_changed', 0, { from, to, detail, ...more })
  }

  #state(): State {
    return {
      chart: this.chart,
      fields: { ...this.fields },
      sequence: this.sequence,
      version: this.#version,
    }
  }
}

/** What decides whether the stored snapshot has to be written again; most records of a running run leave it alone. */
function sameChart(a: RunSnapshot, b: RunSnapshot): boolean {
  if (a === b) return true
  if (statusOf(a) !== statusOf(b)) return false
  return Object.entries(a.context).every(
    ([key, value]) => b.context[key as keyof typeof b.context] === value,
  )
}

/** What others say of the run: none of it is progress of its own. */
const OBSERVATIONS: ReadonlySet<string> = new Set([
  'stuck.noted',
  'stuck.cleared',
  'turn.extended',
  'verdict.noted',
  'run.recycled',
  'cancel.requested',
  'cancel.expired',
  'queue.expired',
  'readers.gone',
  'readers.back',
])

const effects: readonly string[] = RUN_EFFECTS
const isEffect = (action: string): action is RunEffect => effects.includes(action)
