import type { RunEvent } from './types.ts'

/** A message of an agent as far as it is known. */
export interface MessageText {
  readonly messageId: string
  /** What is known of it. */
  readonly text: string
  /** Where `text` begins in the message, in UTF-16 code units; 0 unless its beginning was not read. */
  readonly from: number
}

/** Puts streamed text together. */
export interface MessageAssembler {
  /**
   * Takes the next event. Answers the message as it is after it, or undefined for an event that is no `message_delta`.
   */
  add(event: Pick<RunEvent, 'event_type' | 'payload'>): MessageText | undefined
  /** All messages by their id, in the order of their first delta. Kept until the assembler is dropped. */
  readonly messages: ReadonlyMap<string, MessageText>
}

/**
 * Makes messages of `message_delta` events: give it the events of a run or conversation in their order, and show what
 * `add` answers.
 *
 * A delta says where it belongs, so the text stays right across reconnects, restarts of the service, and a model that
 * begins its answer anew after a crash (the text becomes shorter then). At the end it is that of the `message` event.
 * Never throws; a delta that is not as the contract says is left out.
 */
export function createMessageAssembler(): MessageAssembler {
  const messages = new Map<string, MessageText>()
  return {
    messages,
    add: ({ event_type, payload }) => {
      const { message_id: messageId, offset, text } = payload
      const fits =
        typeof messageId === 'string' && typeof offset === 'number' && typeof text === 'string'
      if (event_type !== 'message_delta' || !fits) return undefined
      const before = messages.get(messageId) ?? { from: offset, text: '' }
      // A piece that does not join what is known begins it anew.
      const joins = offset >= before.from && offset <= before.from + before.text.length
      const from = joins ? before.from : offset
      const kept = joins ? before.text.slice(0, offset - from) : ''
      const message = { messageId, from, text: kept + text }
      messages.set(messageId, message)
      return message
    },
  }
}
