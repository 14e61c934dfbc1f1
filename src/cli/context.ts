import type { Command } from 'commander'
import type { Connection } from './connection.ts'
import type { Io } from './io.ts'

/** What a command works with. */
export interface Context extends Connection {
  readonly io: Io
  /** `--json`: one JSON value on a line, and nothing else. */
  readonly json: boolean
  /** Prints what was asked for, as JSON or as text. */
  readonly print: (value: unknown, text: () => string) => Promise<void>
  /** Says on stderr why it is not all, or not yet, what was asked for: to people in a line or two. */
  readonly warn: (warning: Warning) => void
}

export interface Warning {
  readonly code: string
  readonly detail: string
  /** The command to type next. */
  readonly next?: string | undefined
  /** For programs. */
  readonly [fact: string]: unknown
}

/** Answers the exit code. */
export type Handler<O> = (context: Context, args: readonly string[], options: O) => Promise<number>

/** Puts a handler behind a command. */
export type Does = <O extends object>(command: Command, handler: Handler<O>) => Command
