import { Refusal, type RefusalCode } from '../../errors.ts'
import type { CommandRow } from '../../store/rows.ts'

/** A command that was written, and not refused so far. */
export interface Given extends CommandRow {
  /** By an earlier request of this caller under the same key. */
  replayed: boolean
}

/** The same codes as those of the look at the run before a command is written. */
const CODES: Readonly<Record<string, RefusalCode>> = {
  cancel: 'not_cancellable',
  stop: 'not_cancellable',
  interrupt: 'not_cancellable',
  recycle: 'not_stuck',
  extend: 'not_active',
  resume: 'not_resumable',
  respond: 'not_waiting',
}

/**
 * A command that its run refused when it came to it: between the look at the run and the delivery of the command the run had moved
 * on. Its audit row was written with the refusal. @throws Refusal
 */
export function notRefused<Command extends CommandRow>(command: Command): Command {
  if (command.status !== 'refused') return command
  const { command_id, run_id, kind, outcome } = command
  const text = `the run had moved on when the ${kind} came to it: ${outcome}`
  throw new Refusal(CODES[kind] ?? 'not_active', text, {
    ...{ command_id, run_id },
    ...(kind === 'resume' ? { resume_blocker: text } : {}),
  })
}
