import { setTimeout as delay } from 'node:timers/promises'
import type { Outbound } from '../agents/outbound.ts'
import { clip } from '../clip.ts'
import type { Clock } from '../clock.ts'
import { messageOf } from '../errors.ts'
import type { Logger } from '../runtime/log.ts'
import { Rounds } from '../runtime/rounds.ts'
import type { Sql } from '../store/database.ts'
import {
  type AttemptNote,
  claimDeliveries,
  deleteDeliveries,
  dueHosts,
  type DueDelivery,
  expireDeliveries,
  finishDelivery,
  postponeDelivery,
} from '../store/deliveries.ts'
import { pauseMs } from './backoff.ts'
import { cloudEventOf, signedHeaders } from './notice.ts'
import { Places } from './places.ts'

/** How often a node looks for deliveries that no commit of its own has told it of: retries, and those of dead nodes. */
const LOOK_MS = 1_000
/** A receiver that has not answered by then has not got it. */
const ANSWER_MS_MAX = 15_000
/** How long a claim keeps others away: an attempt, and writing down what came of it. */
const LEASE_MS = 20_000
/** Attempts go on for so long after the event. */
const LIFE_MS = 24 * 3_600_000
/** How long attempts under way may go on when the node stops. */
const DRAIN_MS = 1_000
const TIDY_MS = 60_000
const TIDY_BATCH = 1_000
const TIDY_PAUSE_MS = 100
const ERROR_LENGTH_MAX = 500

export interface DispatcherOptions {
  /** Connections of callers: webhooks never delay the runtime. */
  sql: Sql
  send: Outbound['send']
  /** `whsec_<base64>`; null: this node delivers nothing. */
  secret: string | null
  /** Deliveries that were over so long ago are deleted; null: never. */
  retentionMs: number | null
  clock: Clock
  log: Logger
}

type Attempt = AttemptNote & {
  result: 'delivered' | 'gone' | 'failed' | 'interrupted'
  retryAfter?: string | undefined
}

/**
 * Sends what commits have left in `webhook_deliveries`: each delivery by one node at a time, until its receiver answers 2xx
 * (or 410: it wants no more of it), for at most 24 hours.
 *
 * Failure semantics: at least once. A node that dies, or loses the database, between the answer and the note of it leaves the
 * delivery to be made again when its claim is over.
 */
export class WebhookDispatcher {
  /** What came of attempts, since the start. */
  readonly results = { delivered: 0, gone: 0, failed: 0, given_up: 0 }
  #options: DispatcherOptions
  #looks: Rounds
  #tidying: Rounds
  #places = new Places()
  #underWay = new Set<Promise<void>>()
  #ending = false
  #aborted = new AbortController()
  /** Hosts take turns: the last one that had its turn. */
  #turn = ''
  /** Something due was left for want of places. */
  #left = false

  constructor(options: DispatcherOptions) {
    this.#options = options
    this.#looks = new Rounds(() => this.#look(), LOOK_MS, options.log)
    this.#tidying = new Rounds(() => this.#tidy(), TIDY_MS, options.log)
  }

  start(): void {
    if (this.#options.secret !== null) this.#looks.start()
    this.#tidying.start()
  }

  /** Something is due, as far as the caller knows. */
  look(): void {
    this.#looks.look()
  }

  /** Attempts that do not end soon are broken off, and left to whoever is first. */
  async stop(): Promise<void> {
    this.#ending = true
    const timer = setTimeout(() => this.#aborted.abort(), DRAIN_MS)
    await Promise.all([this.#looks.stop(), this.#tidying.stop()])
    await Promise.all(this.#underWay)
    clearTimeout(timer)
  }

  async #look(): Promise<void> {
    this.#left = false
    // From where the last look stopped to the end, then from the beginning.
    for (const after of new Set([this.#turn, ''])) {
      const { free } = this.#places
      if (this.#ending) return
      const hosts = await dueHosts(this.#options.sql, {
        after,
        busy: this.#places.full,
        limit: free,
      })
      if (hosts.length > 0) await this.#claim(hosts)
      const isWhole = hosts.length < free
      this.#turn = isWhole ? '' : (hosts.at(-1) ?? '')
      this.#left ||= !isWhole
      if (!isWhole) return
    }
  }

  async #claim(hosts: string[]): Promise<void> {
    const { sql, clock } = this.#options
    let { free } = this.#places
    const wanted = hosts.map((host) => {
      const most = Math.min(this.#places.freeOf(host), free)
      free -= most
      return { host, most }
    })
    const claimedAt = clock.monotonicMs()
    const deliveries = await claimDeliveries(sql, wanted, LEASE_MS)
    const taken = Map.groupBy(deliveries, ({ host }) => host)
    if (wanted.some(({ host, most }) => (taken.get(host)?.length ?? 0) === most)) this.#left = true
    for (const delivery of deliveries) this.#begin(delivery, claimedAt)
  }

  #begin(delivery: DueDelivery, claimedAt: number): void {
    const { clock, log } = this.#options
    const { host } = delivery
    this.#places.take(host)
    const attempt = async (): Promise<void> => {
      const since = clock.monotonicMs()
      // Thawed, or kept waiting, for too long: somebody else may be at it.
      const isLate = since - claimedAt > LEASE_MS - ANSWER_MS_MAX
      const came: Attempt = isLate ? INTERRUPTED : await this.#attempt(delivery)
      this.#places.give(host, { ok: came.result === 'delivered', ms: clock.monotonicMs() - since })
      await this.#note(delivery, came)
    }
    const over = attempt()
      .catch((error: unknown) => {
        // The claim ends by itself, and the delivery is made again.
        const { delivery_id } = delivery
        log.warn({ delivery_id, problem: messageOf(error) }, 'the end of a delivery is not noted')
      })
      .finally(() => {
        this.#underWay.delete(over)
        if (this.#left) this.#looks.look()
      })
    this.#underWay.add(over)
  }

  async #attempt(delivery: DueDelivery): Promise<Attempt> {
    const { send, secret, clock } = this.#options
    const tooLate = AbortSignal.timeout(ANSWER_MS_MAX)
    try {
      const body = cloudEventOf(delivery)
      const { status, retryAfter } = await send(delivery.url, body, {
        headers: signedHeaders(secret ?? '', String(delivery.event_id), body, clock.now()),
        signal: AbortSignal.any([tooLate, this.#aborted.signal]),
      })
      if (status >= 200 && status < 300) return { result: 'delivered', status, error: null }
      const error = `answered ${status}${isRedirect(status) ? ', and redirects are not followed' : ''}`
      return { result: status === 410 ? 'gone' : 'failed', status, error, retryAfter }
    } catch (error) {
      if (this.#aborted.signal.aborted) return INTERRUPTED
      const why = tooLate.aborted ? `no answer within ${ANSWER_MS_MAX} ms` : messageOf(error)
      return { result: 'failed', status: null, error: clip(why, ERROR_LENGTH_MAX) }
    }
  }

  async #note(delivery: DueDelivery, came: Attempt): Promise<void> {
    const { sql, clock, log } = this.#options
    const { result } = came
    if (result !== 'interrupted') this.results[result] += 1
    const facts = {
      ...{ delivery_id: delivery.delivery_id, run_id: delivery.run_id, type: delivery.type },
      ...{ host: delivery.host, attempts: delivery.attempts, problem: came.error },
    }
    if (result === 'delivered') return finishDelivery(sql, delivery, result, came)
    if (result === 'gone') {
      await finishDelivery(sql, delivery, result, came)
      return log.info(facts, 'a webhook receiver wants no more of a notice (410)')
    }
    const chance = { now: clock.now(), random: Math.random() }
    const delayMs =
      result === 'interrupted' ? 0 : pauseMs(delivery.attempts, came.retryAfter, chance)
    const givenUp = await postponeDelivery(sql, delivery, { delayMs, lifeMs: LIFE_MS }, came)
    if (givenUp) this.results.given_up += 1
    if (givenUp) log.warn(facts, 'a webhook was given up')
    else if (delivery.attempts === 1 && result === 'failed')
      log.warn(facts, 'a webhook could not be delivered; it is tried again')
  }

  async #tidy(): Promise<void> {
    const { sql, retentionMs, log } = this.#options
    const expired = await this.#inBatches(() => expireDeliveries(sql, LIFE_MS, TIDY_BATCH))
    this.results.given_up += expired
    if (expired > 0) log.warn({ deliveries: expired }, 'webhooks were given up: too old')
    if (retentionMs !== null)
      await this.#inBatches(() => deleteDeliveries(sql, retentionMs, TIDY_BATCH))
  }

  async #inBatches(work: () => Promise<number>): Promise<number> {
    let sum = 0
    while (!this.#ending) {
      const count = await work()
      sum += count
      if (count < TIDY_BATCH) break
      await delay(TIDY_PAUSE_MS)
    }
    return sum
  }
}

const INTERRUPTED: Attempt = {
  result: 'interrupted',
  status: null,
  error: 'broken off by its sender',
}
const isRedirect = (status: number): boolean => status >= 300 && status < 400
