import { createParser, type EventSourceMessage } from 'eventsource-parser'
import { RunlaneError } from './errors.ts'
import type { RunEvent } from './types.ts'

/** Characters of one frame; the service bounds what agents say well below. */
const FRAME_LENGTH_MAX = 64 * 1024 * 1024

/** Frames out of bytes, however they are cut. */
export class Frames {
  readonly #decoder = new TextDecoder()
  readonly #parser
  #frames: EventSourceMessage[] = []
  #problem: Error | undefined

  constructor(onRetry: (ms: number) => void) {
    this.#parser = createParser({
      maxBufferSize: FRAME_LENGTH_MAX,
      onRetry,
      onEvent: (frame) => this.#frames.push(frame),
      onError: (error) => {
        if (error.type === 'max-buffer-size-exceeded') this.#problem = error
      },
    })
  }

  take(bytes: Uint8Array): EventSourceMessage[] {
    this.#parser.feed(this.#decoder.decode(bytes, { stream: true }))
    if (this.#problem) throw strange(this.#problem)
    const frames = this.#frames
    this.#frames = []
    return frames
  }
}

/** Undefined for kinds of frames that a later version may add. */
export function eventOf({ event, data }: EventSourceMessage): RunEvent | undefined {
  if (event !== undefined && event !== 'message') return undefined
  try {
    return JSON.parse(data) as RunEvent
  } catch (cause) {
    throw strange(cause)
  }
}

const strange = (cause: unknown): RunlaneError =>
  new RunlaneError({
    code: 'unexpected_answer',
    detail: 'the event stream holds something that is no event',
    cause,
  })
