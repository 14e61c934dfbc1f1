import { Worker } from 'node:worker_threads'

/** What goes over to the thread at its start. */
export interface SentinelData {
  /** Two Float64: monotonic milliseconds at which the event loop turned last, and how many runs the node hosts. */
  beat: SharedArrayBuffer
  nodeId: string
  /** A loop that has been silent for so long is told of, in milliseconds. */
  silenceMs: number
}

/** How often the loop shows that it turns, in milliseconds. */
const BEAT_MS = 250

export interface SentinelOptions {
  nodeId: string
  silenceMs: number
  hosted: () => number
  monotonicMs: () => number
}

/**
 * Tells that the event loop of the main thread is blocked while it is: nothing in it can, its watchdog included. It is a
 * thread that reads a beat in shared memory and writes to standard error by itself. It neither keeps the process alive nor
 * ends it; what it says is for whoever reads the log, and for other nodes there is the lease.
 */
export function startSentinel(options: SentinelOptions): () => Promise<void> {
  const { nodeId, silenceMs, hosted, monotonicMs } = options
  const beat = new SharedArrayBuffer(16)
  const shared = new Float64Array(beat)
  const turn = (): void => {
    shared[0] = monotonicMs()
    shared[1] = hosted()
  }
  turn()
  const timer = setInterval(turn, BEAT_MS).unref()
  const worker = new Worker(new URL('./sentinel-main.ts', import.meta.url), {
    workerData: { beat, nodeId, silenceMs } satisfies SentinelData,
    name: 'sentinel',
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: 32 },
  })
  worker.unref()
  // Without it the service is as before.
  worker.on('error', () => {})
  return async () => {
    clearInterval(timer)
    await worker.terminate()
  }
}
