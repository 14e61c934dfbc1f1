/** Text for people who read it in a terminal. */
import type { Json } from '../client/index.ts'

/** Control characters, and those that change the direction of what follows. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu
const escaped = (character: string): string =>
  `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`

/**
 * Text of agents and callers as one line that a terminal only shows: nothing in it can move the cursor, change colours or
 * the title, or hide what stands beside it.
 */
export const printable = (text: string): string =>
  text
    .replaceAll(/\r\n|[\r\n]/g, ' ⏎ ')
    .replaceAll('\t', ' ')
    .replaceAll(UNPRINTABLE, escaped)

/** The same over several lines. */
export const printableLines = (text: string): string =>
  text
    .split(/\r\n|[\r\n]/)
    .map(printable)
    .join('\n')

/** JSON on one line; what it leaves as it is, and a terminal would not, is escaped too. */
export const jsonLine = (value: unknown): string =>
  `${JSON.stringify(value).replaceAll(UNPRINTABLE, escaped)}\n`

export function clipped(text: string, length: number): string {
  if (text.length <= length) return text
  // Not within a surrogate pair.
  return `${text.slice(0, length).replace(/[\uD800-\uDBFF]$/, '')}…`
}

/** JSON to read, cut where it is long. */
export function jsonBlock(value: Json): string {
  const text = JSON.stringify(value, null, 2).replaceAll(/[^\n]+/g, printable)
  return clipped(text, 2_000) + (text.length > 2_000 ? ' (all of it: --json)' : '')
}

export type Cell = string | number | boolean | null | undefined

const cellText = (cell: Cell): string => {
  if (cell === null || cell === undefined || cell === '') return '-'
  return printable(String(cell))
}

/** Columns side by side, with a heading. */
export const table = (heading: readonly string[], rows: readonly (readonly Cell[])[]): string =>
  columns([heading, ...rows.map((row) => row.map(cellText))])

/** Names and values; those that are null are left out. */
export const fields = (pairs: readonly (readonly [name: string, value: Cell])[]): string =>
  columns(
    pairs
      .filter(([, value]) => value !== null && value !== undefined && value !== '')
      .map(([name, value]) => [name, cellText(value)]),
  )

function columns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) {
    for (const [index, cell] of row.entries())
      widths[index] = Math.max(widths[index] ?? 0, cell.length)
  }
  return rows
    .map((row) =>
      row
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('')
}

export const indented = (text: string): string => text.replaceAll(/^(?=.)/gm, '  ')

/** A duration as people say it: `3m 12s`. */
export function spoken(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}ms`
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ] as const
  return parts
    .filter(([count]) => count > 0)
    .slice(0, 2)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ')
}
