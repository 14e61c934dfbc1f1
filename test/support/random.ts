/**
 * A seeded source of randomness (mulberry32): the same seed gives the same numbers on every machine,
 * so a failing random test is repeated by its seed. Not for secrets.
 */
export const seeded = (seed: number): Random => {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const int = (below: number): number => Math.floor(next() * below)
  return {
    seed,
    next,
    int,
    pick: (items) => {
      if (items.length === 0) throw new Error('nothing to pick from')
      return items[int(items.length)] as (typeof items)[number]
    },
    chance: (probability) => next() < probability,
    shuffle: (items) => {
      // Fisher-Yates: each order is equally likely.
      const shuffled = [...items]
      for (let last = shuffled.length - 1; last > 0; last -= 1) {
        const [taken] = shuffled.splice(int(last + 1), 1)
        shuffled.push(taken as (typeof items)[number])
      }
      return shuffled
    },
  }
}

export type Random = {
  readonly seed: number
  /** From 0 up to, not including, 1. */
  next(): number
  /** A whole number from 0 up to, not including, `below`. */
  int(below: number): number
  /** @throws on an empty list. */
  pick<T>(items: readonly T[]): T
  /** True with this probability, 0 to 1. */
  chance(probability: number): boolean
  /** A new list; the given one is left alone. */
  shuffle<T>(items: readonly T[]): T[]
}
