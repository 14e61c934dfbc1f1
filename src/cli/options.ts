/** How options are read. What they mean to the service is for the service to check. */
import { InvalidArgumentError, Option } from 'commander'
import type { Json, Resolution } from '../client/index.ts'
import { parseDuration } from '../duration.ts'
import { type Io, UsageError } from './io.ts'

/** `--wait` alone waits as long as it takes. */
export const waitOption = (text: string): Option =>
  new Option('--wait [duration]', `${text}, at most so long, such as 30s`).argParser(duration)

/** JSON, `@file`, or `-`. */
export async function jsonOf(option: string, text: string, io: Io): Promise<Json> {
  let source = text
  try {
    if (text === '-') source = await io.readInput()
    else if (text.startsWith('@')) source = await io.readFile(text.slice(1))
    return JSON.parse(source) as Json
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new UsageError(`${option}: ${reason}`)
  }
}

export function duration(text: string): number {
  try {
    return parseDuration(text)
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? `It ${error.message}.` : '')
  }
}

export function integer(text: string): number {
  if (!/^[+-]?\d{1,15}$/.test(text)) throw new InvalidArgumentError('It must be a whole number.')
  return Number(text)
}

export function wholeNumber(text: string): number {
  const value = integer(text)
  if (value < 0) throw new InvalidArgumentError('It must not be negative.')
  return value
}

/** `call_1=succeeded:{"id":7}`; given several times, one for each call. */
export function resolved(
  text: string,
  before: Readonly<Record<string, Resolution>> = {},
): Record<string, Resolution> {
  const [, call, outcome, result] = /^(.+)=(succeeded|failed|retry)(?::(.+))?$/s.exec(text) ?? []
  if (call === undefined)
    throw new InvalidArgumentError('It must be <tool_call_id>=succeeded, =failed or =retry.')
  try {
    const value: unknown = result === undefined ? undefined : JSON.parse(result)
    const resolution = { outcome: outcome as Resolution['outcome'], result: value }
    return { ...before, [call]: resolution }
  } catch {
    throw new InvalidArgumentError('What follows the outcome must be JSON.')
  }
}
