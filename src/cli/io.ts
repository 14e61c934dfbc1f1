/** What a command has of the process around it. */
export interface Io {
  /** Of this package. */
  readonly version: string
  /** To stdout. Resolves when whoever reads it has kept up; rejects when they left, or on Ctrl-C. */
  readonly write: (text: string) => Promise<void>
  /** A line to stderr: for people, beside what was asked for. */
  readonly note: (line: string) => void
  readonly readFile: (path: string) => Promise<string>
  /** All of stdin. */
  readonly readInput: () => Promise<string>
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Ctrl-C, or nobody reads stdout any more. */
  readonly ended: AbortSignal
}

/** Documented in the help: programs decide on these. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  notCompleted: 4,
  interrupted: 130,
} as const

/** The command was called wrongly. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}
