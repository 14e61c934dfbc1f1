import type { CallRow } from '../store/rows.ts'

/** Splits by code points, so that no chunk ends in half a character. */
export function splitText(text: string, chunks: number): string[] {
  const points = Array.from(text)
  const size = Math.max(1, Math.ceil(points.length / Math.max(1, chunks)))
  const parts: string[] = []
  for (let start = 0; start < points.length; start += size)
    parts.push(points.slice(start, start + size).join(''))
  return parts.length > 0 ? parts : ['']
}

/** How many chunks were streamed before a crash: they are with the readers already. */
export function saidBefore(recorded: CallRow | undefined): number {
  const result = recorded?.result
  if (typeof result !== 'object' || result === null || Array.isArray(result)) return 0
  return typeof result['said'] === 'number' ? result['said'] : 0
}
