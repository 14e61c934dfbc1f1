import { RUN_MACHINE_VERSION, type RunMachine } from '../../../machines/run.ts'
import { Refusal } from '../../errors.ts'
import { newCommandId, newRecordId, newRunId } from '../../ids.ts'
import type { Json } from '../../json.ts'
import type { CreateGroup, KeyDraft, RunDraft } from '../../store/flush.ts'
import type { EncodedChart, RunOptions } from '../../store/rows.ts'
import { encodeChart, newChart } from '../run/codec.ts'
import type { Caller } from './caller.ts'
import type { Committer } from '../commit/committer.ts'
import type { Mailroom } from './mailroom.ts'

/** A checked request for a run. */
export interface RunRequest {
  conversation_id: string
  agent: string
  surface: string
  created_by: string
  owner: string | null
  lane_key: string
  lane_policy: RunDraft['lane_policy']
  only_own?: true
  queue: string
  priority: number
  run_at: string | null
  hold_lane_on_human: boolean
  idempotency_key: string | null
  input: Json
  metadata: Record<string, Json>
  options: RunOptions
}

export interface Created {
  run_ids: string[]
  /** All of them were there before: the same Idempotency-Key, or an input that replaced a waiting one. */
  existing: boolean
  /** The request was a repetition under its Idempotency-Key. */
  replayed: boolean
}

/** Rounds of a `coalesce` that keeps losing against the lane's movement. */
const TRIES = 10

/** Writes new runs; all requests of one call are accepted or none. */
export class Creator {
  #machine: RunMachine
  #committer: Committer
  #mailroom: Mailroom
  /** A cancel is in somebody's mail, or a time has to be waited for: no need to leave it to the next poll. */
  #look: () => void
  #coalescing = new Map<string, Promise<void>>()
  #charts = new Map<string, EncodedChart>()

  constructor(options: {
    machine: RunMachine
    committer: Committer
    mailroom: Mailroom
    look: () => void
  }) {
    this.#machine = options.machine
    this.#committer = options.committer
    this.#mailroom = options.mailroom
    this.#look = options.look
  }

  /** @throws Refusal lane_busy, forbidden, idempotency_conflict, database_unavailable */
  create(requests: RunRequest[], caller: Caller): Promise<Created> {
    const [first] = requests
    if (first?.lane_policy !== 'coalesce') return this.#create(requests, caller)
    // One at a time per lane: together they would only take the waiting run from each other.
    const before = this.#coalescing.get(first.lane_key) ?? Promise.resolve()
    const made = before.then(() => this.#create(requests, caller))
    const over = made.then(
      () => {},
      () => {},
    )
    this.#coalescing.set(first.lane_key, over)
    void over.then(() => {
      if (this.#coalescing.get(first.lane_key) === over) this.#coalescing.delete(first.lane_key)
    })
    return made
  }

  /**
   * Writes a fork with all that it takes over, or nothing of it.
   * @param weight characters that it takes over, roughly
   * @throws Refusal idempotency_conflict, not_found when its origin was deleted meanwhile, database_unavailable
   */
  async fork(draft: RunDraft, weight: number): Promise<Created> {
    const group = { group_id: newRecordId(), weight, careful: true, members: [draft] }
    const answer = await this.#committer.create(group)
    if (!('runs' in answer)) throw refusalOf(answer)
    const existing = answer.runs.every((run) => run.existing)
    return { run_ids: answer.runs.map((run) => run.run_id), existing, replayed: existing }
  }

  async #create(requests: RunRequest[], caller: Caller): Promise<Created> {
    for (let attempt = 0; attempt < TRIES; attempt += 1) {
      const group = this.#groupOf(requests)
      const answer = await this.#committer.create(group)
      if ('runs' in answer) {
        const existing = answer.runs.every((run) => run.existing)
        if (requests.some((one) => one.lane_policy === 'interrupt' || one.run_at !== null))
          this.#look()
        return { run_ids: answer.runs.map((run) => run.run_id), existing, replayed: existing }
      }
      if (answer.refused !== 'coalesce') throw refusalOf(answer)
      const [request] = requests
      if (!request) break
      const replaced = { input: request.input, key: keyOf(request), caller }
      if (await this.#mailroom.replaceInput(answer.run_id, replaced)) {
        return { run_ids: [answer.run_id], existing: true, replayed: false }
      }
    }
    throw new Refusal(
      'lane_busy',
      'the lane moved on each time its waiting run was about to be replaced: try again',
    )
  }

  #groupOf(requests: RunRequest[]): CreateGroup {
    const careful = requests.some(
      (request) => request.idempotency_key !== null || request.lane_policy !== 'enqueue',
    )
    const weight = requests.reduce(
      (sum, { input, metadata }) => sum + 1000 + sizeOf(input) + sizeOf(metadata),
      0,
    )
    return {
      group_id: newRecordId(),
      weight,
      careful,
      members: requests.map((request) => this.#draftOf(request)),
    }
  }

  #draftOf({ hold_lane_on_human, ...request }: RunRequest): RunDraft {
    const run_id = newRunId()
    const interrupts = request.lane_policy === 'interrupt'
    return {
      ...request,
      run_id,
      parent_run_id: null,
      root_run_id: run_id,
      front: interrupts,
      interrupt_command_id: interrupts ? newCommandId() : null,
      chart: this.#chartOf(request.run_at !== null, hold_lane_on_human),
    }
  }

  #chartOf(delayed: boolean, hold_lane_on_human: boolean): EncodedChart {
    const key = `${RUN_MACHINE_VERSION}:${delayed}:${hold_lane_on_human}`
    const known = this.#charts.get(key)
    if (known) return known
    const chart = encodeChart(newChart(this.#machine, { delayed, hold_lane_on_human }))
    this.#charts.set(key, chart)
    return chart
  }
}

const sizeOf = (value: Json): number => JSON.stringify(value).length

function keyOf({ created_by, idempotency_key, options }: RunRequest): KeyDraft | null {
  return idempotency_key === null
    ? null
    : { created_by, idempotency_key, request_hash: options.request_hash ?? '' }
}

function refusalOf(answer: { refused: string; run_id: string }): Refusal {
  if (answer.refused === 'idempotency_conflict') {
    return new Refusal(
      'idempotency_conflict',
      `this Idempotency-Key was used for ${answer.run_id} with another body`,
      {
        run_id: answer.run_id,
      },
    )
  }
  if (answer.refused === 'forbidden') {
    return new Refusal(
      'forbidden',
      `a service may replace and interrupt the runs that it created, and ${answer.run_id} in this lane is not one`,
      { run_id: answer.run_id },
    )
  }
  if (answer.refused === 'not_found')
    return new Refusal('not_found', `the run ${answer.run_id} is being deleted`)
  return new Refusal('lane_busy', `the lane is busy with ${answer.run_id}`, {
    run_id: answer.run_id,
  })
}
