import type { ActorLogic, ActorRefFromLogic, Snapshot } from 'xstate'
import type { RunEffect } from '../../../machines/run-setup.ts'
import type { RunRecord } from '../../store/flush.ts'
import type { RecordSource } from '../commit/batch.ts'
import type { Committer } from '../commit/committer.ts'
import type { Ledger } from './ledger.ts'
import type { RunMessage } from './messages.ts'
import type { ToldClock } from './told-clock.ts'

/** Told to whoever sent a message: once its decision is committed, or that it never will be. */
export type Settled = (refusal?: 'not_accepted' | 'record_refused' | 'fenced') => void

export type DurableEvent =
  | (RunMessage & { settled?: Settled })
  /** Several that are one decision; the answer is about the last one. */
  | { type: 'decision.asked'; messages: readonly RunMessage[]; settled?: Settled }
  | CommitEvent

type CommitEvent =
  | { type: 'record.committed' }
  | { type: 'record.refused'; reason: 'fenced' | 'data'; message: string }
  /** Performs the effects of decisions that SQL has committed: what a claim asks for. */
  | { type: 'effects.due'; effects: RunEffect[] }
  /** Its row is to be written, though nothing is decided. */
  | { type: 'record.wanted' }
  /** Answered when everything decided so far is committed. */
  | { type: 'barrier.asked'; settled: Settled }
  /** The host has let go of the run: the actor ends. */
  | { type: 'actor.released' }

export type DurableSnapshot = Snapshot<undefined> & { ledger: Ledger }

export interface DurableInput {
  ledger: Ledger
}

/** What a durable actor needs around it; the chart names effects, the host performs them. */
export interface DurableHost {
  committer: Committer
  /** After the commit of the decision that named it, and only then. */
  perform(effect: RunEffect, actor: RunActor): void
  /** What its row says of its clocks; undefined when it is no longer hosted here. */
  clockOf(actor: RunActor): ToldClock | undefined
  /** The run is no longer hosted here: parked, handed over, ended, or owned by another node. */
  leave(actor: RunActor, reason: 'settled' | 'fenced'): void
}

export type DurableLogic = ActorLogic<DurableSnapshot, DurableEvent, DurableInput>
export type RunActor = ActorRefFromLogic<DurableLogic>

/**
 * Makes an XState actor of a pure chart: each message is decided at once in memory, its record goes to the committer,
 * and only when that is written are the effects performed and the sender told. Messages that arrive while a record is
 * in flight are decided into the next one.
 *
 * Failure semantics: dying before the commit loses the decision and nothing else, since nothing was done about it yet;
 * dying after it leaves a decision whose effects are due: whoever adopts the run finds it and resumes.
 */
export function durable(host: DurableHost): DurableLogic {
  const desks = new WeakMap<Ledger, CommitDesk>()
  return {
    getInitialSnapshot: (_scope, input) => ({
      status: 'active',
      output: undefined,
      error: undefined,
      ledger: input.ledger,
    }),
    start: (state, { self }) => {
      desks.set(state.ledger, new CommitDesk(host, state.ledger, self))
    },
    transition: (state, event) => {
      if (event.type === 'actor.released') {
        desks.get(state.ledger)?.close()
        return { status: 'done', output: undefined, error: undefined, ledger: state.ledger }
      }
      desks.get(state.ledger)?.receive(event)
      return state
    },
    getPersistedSnapshot: (state) => state,
  }
}

/** Between a ledger and the committer: at most one record in flight, the rest in the ledger's draft. */
class CommitDesk implements RecordSource {
  #host: DurableHost
  #ledger: Ledger
  #actor: RunActor
  #inFlight = false
  #closed = false
  #letters = new Set<string>()
  #effects: RunEffect[] = []
  #waiting: Settled[] = []
  #taken: { effects: RunEffect[]; waiting: Settled[] } = { effects: [], waiting: [] }

  constructor(host: DurableHost, ledger: Ledger, actor: RunActor) {
    this.#host = host
    this.#ledger = ledger
    this.#actor = actor
  }

  receive(event: DurableEvent): void {
    if (event.type === 'record.committed') return this.#committed()
    if (event.type === 'record.refused') return this.#refused(event.reason, event.message)
    if (event.type === 'barrier.asked') return this.#barrier(event.settled)
    if (event.type === 'actor.released') return this.close()
    if (event.type === 'record.wanted') return this.#touch()
    if (event.type === 'effects.due')
      return event.effects.forEach((effect) => this.#host.perform(effect, this.#actor))
    if (event.type === 'decision.asked') return this.#decide(event.messages, event.settled)
    const { settled, ...message } = event
    this.#decide([message as RunMessage], settled)
  }

  /** Nobody waits for what will never be committed here. */
  close(): void {
    this.#closed = true
    for (const settled of [...this.#taken.waiting, ...this.#waiting]) settled('fenced')
    this.#taken.waiting = []
    this.#waiting = []
  }

  take(): RunRecord {
    this.#inFlight = true
    this.#taken = { effects: this.#effects, waiting: this.#waiting }
    this.#effects = []
    this.#waiting = []
    return this.#ledger.take(this.#host.clockOf(this.#actor)?.take())
  }

  committed(): void {
    if (!this.#closed) this.#actor.send({ type: 'record.committed' })
  }

  refused(reason: 'fenced' | 'data', message: string): void {
    if (!this.#closed) this.#actor.send({ type: 'record.refused', reason, message })
  }

  #decide(messages: readonly RunMessage[], settled?: Settled): void {
    const letter = messages.at(-1)?.letter
    // The inbox is read again until the commit that consumes a letter: each counts once.
    if (letter && this.#letters.has(letter.dedupe_key)) {
      if (settled) this.#barrier(settled)
      return
    }
    const effects = this.#ledger.decideAll(messages)
    // A signal that it does not read stays for the next call that asks for it.
    if (!effects && (!letter || letter.kind === 'signal')) {
      settled?.('not_accepted')
      return this.#enlist()
    }
    if (letter) this.#letters.add(letter.dedupe_key)
    if (!effects && letter) {
      // That it is refused is recorded like any outcome: whoever asked hears of it when it is.
      this.#ledger.settleLetter(letter, 'refused', `not possible in ${this.#ledger.status}`)
    }
    this.#effects.push(...(effects ?? []))
    if (settled) this.#waiting.push(settled)
    this.#enlist()
  }

  #barrier(settled: Settled): void {
    if (this.#closed) settled('fenced')
    else if (this.#ledger.dirty) this.#waiting.push(settled)
    else if (this.#inFlight) this.#taken.waiting.push(settled)
    else settled()
  }

  #touch(): void {
    this.#ledger.touch()
    this.#enlist()
  }

  #enlist(): void {
    if (!this.#inFlight && this.#ledger.dirty) this.#host.committer.enlist(this)
  }

  #committed(): void {
    this.#inFlight = false
    this.#ledger.settle()
    this.#host.clockOf(this.#actor)?.settle()
    const { effects, waiting } = this.#taken
    this.#taken = { effects: [], waiting: [] }
    for (const effect of effects) this.#host.perform(effect, this.#actor)
    for (const settled of waiting) settled()
    this.#enlist()
    if (!this.#inFlight && !this.#ledger.dirty && !this.#ledger.chart.hasTag('active')) {
      this.#host.leave(this.#actor, 'settled')
    }
  }

  #refused(reason: 'fenced' | 'data', message: string): void {
    this.#inFlight = false
    const waiting = [...this.#taken.waiting, ...this.#waiting]
    this.#taken = { effects: [], waiting: [] }
    this.#waiting = []
    this.#effects = []
    for (const settled of waiting) settled(reason === 'data' ? 'record_refused' : 'fenced')
    if (reason === 'fenced') return this.#host.leave(this.#actor, 'fenced')
    // Only this run is to blame, and only it fails: from what the database has, with a record that says why.
    this.#ledger.revert()
    this.#letters.clear()
    this.#decide([
      {
        type: 'run.failed',
        code: 'record_refused',
        message: `The database refused a value: ${message}`,
      },
    ])
  }
}
