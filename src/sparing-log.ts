import type { Logger } from './runtime/log.ts'

const PAUSE_MS = 60_000

/**
 * Lines that any request may cause, so that nobody fills the log by asking: of each kind the first one is written at once,
 * and then one a minute at most, which says how many it stands for (`times`). Kinds are few, and named by the code.
 */
export class SparingLog {
  #log: Logger
  #kinds = new Map<string, { quietUntil: number; times: number }>()

  constructor(log: Logger) {
    this.#log = log
  }

  tell(
    level: keyof Logger,
    kind: string,
    facts: Record<string, unknown>,
    message: string,
    now = performance.now(),
  ): void {
    const known = this.#kinds.get(kind) ?? { quietUntil: -Infinity, times: 0 }
    this.#kinds.set(kind, known)
    known.times += 1
    if (now < known.quietUntil) return
    this.#log[level]({ ...facts, times: known.times }, message)
    known.quietUntil = now + PAUSE_MS
    known.times = 0
  }
}
