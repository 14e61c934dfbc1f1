import type { SseFrame } from './sse.ts'

export type Delta = { readonly text: string; readonly offset: number; readonly message_id: string }

/** Messages as a reader has them who applies `text = text.slice(0, offset) + delta` to each delta, by message id. */
export const assemble = (deltas: readonly Delta[]): Record<string, string> => {
  const messages: Record<string, string> = {}
  for (const { text, offset, message_id } of deltas) {
    const before = messages[message_id] ?? ''
    if (offset > before.length) {
      throw new Error(`a delta of ${message_id} at ${offset}, but ${before.length} is there`)
    }
    messages[message_id] = before.slice(0, offset) + text
  }
  return messages
}

/** What is in frames of a type. */
export const payloadsOf = <T>(frames: readonly SseFrame[], type: string): T[] =>
  frames
    .map(({ data }) => JSON.parse(data ?? 'null') as { event_type: string; payload: T } | null)
    .filter((event) => event?.event_type === type)
    .flatMap((event) => (event ? [event.payload] : []))
