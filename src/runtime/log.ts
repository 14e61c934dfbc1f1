/** Structured log lines: facts first, then what happened. No prompt, payload or secret ever goes in. */
export interface Logger {
  info(facts: Record<string, unknown>, message: string): void
  warn(facts: Record<string, unknown>, message: string): void
  error(facts: Record<string, unknown>, message: string): void
}
