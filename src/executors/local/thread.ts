import { Worker } from 'node:worker_threads'
import type { Job, SessionCall, SessionMessage, SessionPort } from '../../agents/port.ts'
import type { Session } from './session.ts'

/** What goes over to the thread at its start. */
export interface ThreadData {
  job: Job
  /** The lease deadline in shared memory: the thread checks it itself before each effect. */
  deadline: SharedArrayBuffer
  /** Hosts that `http` steps may reach although they are private. */
  allow: readonly string[]
}

export type ToThread =
  | { type: 'cleared'; id: number; accepted: boolean }
  | { type: 'closed'; id: number }
  | { type: 'cancel' }
  | { type: 'drain' }
export type FromThread =
  | { type: 'send'; message: SessionMessage }
  | { type: 'barrier'; id: number }
  | { type: 'begin'; id: number; call: SessionCall }
  | { type: 'beat' }

/** Heap of one agent's thread, in megabytes: an agent that eats memory loses its thread, not the service. */
const HEAP_MB_MAX = 512

/**
 * Runs an attempt in a thread of its own, so that code which blocks its event loop delays nobody. `onLost` is called
 * when the thread ends without having reported an end: the attempt is lost, the run is not.
 */
export function startThread(
  data: ThreadData,
  port: SessionPort,
  onLost: (reason: string) => void,
): Session {
  const worker = new Worker(new URL('./thread-main.ts', import.meta.url), {
    workerData: data,
    name: data.job.run_id,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB_MAX },
    env: {},
  })
  let over = false
  const post = (message: ToThread): void => worker.postMessage(message)
  worker.on('message', (message: FromThread) => {
    if (over) return
    if (message.type === 'beat') return port.beat()
    if (message.type === 'send') {
      over = isEnd(message.message)
      return port.send(message.message)
    }
    const { id } = message
    const asked =
      message.type === 'begin' ? port.begin(message.call) : port.barrier().then(() => true)
    asked.then(
      (accepted) => post({ type: 'cleared', id, accepted }),
      () => post({ type: 'closed', id }),
    )
  })
  const lose = (reason: string): void => {
    if (over) return
    over = true
    onLost(reason)
  }
  worker.on('error', (error) =>
    lose(`the executor thread failed: ${error instanceof Error ? error.message : String(error)}`),
  )
  worker.on('exit', (code) => lose(`the executor thread exited with code ${code}`))
  return {
    cancel: () => post({ type: 'cancel' }),
    drain: () => post({ type: 'drain' }),
    kill: () => {
      over = true
      void worker.terminate()
    },
  }
}

const ENDS: ReadonlySet<SessionMessage['type']> = new Set([
  'run.completed',
  'run.failed',
  'session.exited',
  'attempt.handed_over',
])
const isEnd = (message: SessionMessage): boolean => ENDS.has(message.type)
