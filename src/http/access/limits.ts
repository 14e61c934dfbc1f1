import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible'
import { Refusal } from '../../errors.ts'

/** So many in a second for each key, on this node. */
export class RateLimit {
  #limiter: RateLimiterMemory
  #perSecond: number

  constructor(perSecond: number) {
    this.#perSecond = perSecond
    this.#limiter = new RateLimiterMemory({ points: perSecond, duration: 1 })
  }

  /** @throws Refusal rate_limited */
  async take(key: string): Promise<void> {
    try {
      await this.#limiter.consume(key)
    } catch (refused) {
      throw refused instanceof RateLimiterRes ? this.#refusal(refused.msBeforeNext) : refused
    }
  }

  /** Uses up nothing. @throws Refusal rate_limited while the key has no more left */
  async demand(key: string): Promise<void> {
    const used = await this.#limiter.get(key)
    if (used && used.remainingPoints <= 0) throw this.#refusal(used.msBeforeNext)
  }

  #refusal(waitMs: number): Refusal {
    return new Refusal('rate_limited', `more than ${this.#perSecond} requests in a second`, {
      retry_after_ms: Math.ceil(waitMs),
    })
  }
}

/** Connections that a caller holds open. */
export class ConnectionLimit {
  #max: number
  #open = new Map<string, number>()

  constructor(max: number) {
    this.#max = max
  }

  /** @throws Refusal too_many_connections when there is no room for one more */
  demand(key: string): void {
    this.take(key)()
  }

  /** Answers how to give it back. @throws Refusal too_many_connections */
  take(key: string): () => void {
    const open = this.#open.get(key) ?? 0
    if (open >= this.#max)
      throw new Refusal(
        'too_many_connections',
        `you hold ${this.#max} streams and waits on this node already`,
      )
    this.#open.set(key, open + 1)
    let given = false
    return () => {
      if (given) return
      given = true
      const left = (this.#open.get(key) ?? 1) - 1
      if (left > 0) this.#open.set(key, left)
      else this.#open.delete(key)
    }
  }
}
