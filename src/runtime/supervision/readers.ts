import type { Reading } from '../../store/readers.ts'

export interface ReadersOptions {
  noteReadings: (readings: Reading[]) => Promise<void>
  readLately: (keys: string[], withinMs: number) => Promise<string[]>
  forgetReadings: (olderThanMs: number) => Promise<void>
  /** For how long it matters that somebody has read. */
  keepMs: number
  monotonicMs: () => number
}

/** What a stream reads. */
export interface ReadScope {
  run_id?: string | undefined
  conversation_id?: string | undefined
}

/** Readers that have left, remembered until the database is told; while it is away, no more than these. */
const LEFT_MAX = 10_000
/** How often rows of readers that left long ago are deleted, in milliseconds. */
const FORGET_MS = 60_000

export const keyOfRun = (runId: string): string => `run:${runId}`
export const keyOfConversation = (conversationId: string): string =>
  `conversation:${conversationId}`

/** Who reads streams of runs and conversations: at this node by its own memory, elsewhere by a table of readings. */
export class Readers {
  #options: ReadersOptions
  #present = new Map<string, number>()
  /** Monotonic time of the last one's leaving. */
  #left = new Map<string, number>()
  #forgotAt: number

  constructor(options: ReadersOptions) {
    this.#options = options
    this.#forgotAt = options.monotonicMs()
  }

  /** Somebody begins to read; the answer is how to say that they leave. Who reads everything reads nothing in particular. */
  enter({ run_id, conversation_id }: ReadScope): () => void {
    const key =
      run_id !== undefined
        ? keyOfRun(run_id)
        : conversation_id === undefined
          ? null
          : keyOfConversation(conversation_id)
    if (key === null) return () => {}
    this.#present.set(key, (this.#present.get(key) ?? 0) + 1)
    let isHere = true
    return () => {
      if (isHere) this.#leave(key)
      isHere = false
    }
  }

  /** Tells the database who reads here, and who did when this was told last. */
  async tell(): Promise<void> {
    const { noteReadings, forgetReadings, keepMs, monotonicMs } = this.#options
    const now = monotonicMs()
    const left = new Map(this.#left)
    const readings = [
      ...[...left].map(([key, at]) => ({ key, ago_ms: now - at })),
      ...[...this.#present.keys()].map((key) => ({ key, ago_ms: 0 })),
    ]
    const latest = new Map(readings.map((reading) => [reading.key, reading]))
    if (latest.size > 0) await noteReadings([...latest.values()])
    for (const [key, at] of left) if (this.#left.get(key) === at) this.#left.delete(key)
    if (now - this.#forgotAt < FORGET_MS) return
    this.#forgotAt = now
    await forgetReadings(Math.max(FORGET_MS, 2 * keepMs))
  }

  /** Those of the keys that are read, or were read within the last `withinMs`, on whichever node. */
  async read(keys: string[], withinMs: number): Promise<Set<string>> {
    const elsewhere = await this.#options.readLately(keys, withinMs)
    return new Set([...keys.filter((key) => this.#present.has(key)), ...elsewhere])
  }

  #leave(key: string): void {
    const others = (this.#present.get(key) ?? 1) - 1
    if (others > 0) {
      this.#present.set(key, others)
      return
    }
    this.#present.delete(key)
    const [oldest] = this.#left.keys()
    if (this.#left.size >= LEFT_MAX && oldest !== undefined) this.#left.delete(oldest)
    this.#left.set(key, this.#options.monotonicMs())
  }
}
