/** Structured log lines: facts first, then what happened. No prompt, payload or secret ever goes in. */
export interface Logger {
  info(facts: Record<string, unknown>, message: string): void
  warn(facts: Record<string, unknown>, message: string): void
  error(facts: Record<string, unknown>, message: string): void
}

/** One JSON object per line. */
export function jsonLogger(write: (line: string) => void): Logger {
  const at = (level: string) => (facts: Record<string, unknown>, message: string) =>
    write(JSON.stringify({ level, at: new Date().toISOString(), message, ...facts }))
  return { info: at('info'), warn: at('warn'), error: at('error') }
}
