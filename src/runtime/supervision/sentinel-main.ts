/** The inside of the sentinel's thread. */
import { workerData } from 'node:worker_threads'
import { systemClock } from '../../clock.ts'
import { createLogger } from '../../log.ts'
import type { SentinelData } from './sentinel.ts'

const { beat, nodeId, silenceMs } = workerData as SentinelData
const shared = new Float64Array(beat)
/** Of its own: it writes to standard error by itself, without the main thread. */
const log = createLogger(nodeId)
const LOOK_MS = Math.min(500, silenceMs / 4)

let lookedAt = systemClock.monotonicMs()
/** For how long the loop has to be silent to be told of next: twice as long each time, so that a long block is few lines. */
let tellAt = silenceMs
let blockedMs = 0

function look(): void {
  const now = systemClock.monotonicMs()
  const late = now - lookedAt - LOOK_MS
  lookedAt = now
  // The whole process was frozen, and this thread with it: that was nobody's loop.
  if (late > silenceMs / 2) return
  const silentMs = now - (shared[0] ?? now)
  const facts = { runs: shared[1] ?? 0, blocked_ms: Math.round(Math.max(silentMs, blockedMs)) }
  if (silentMs < silenceMs) {
    if (blockedMs > 0) log.warn(facts, 'the event loop turns again')
    blockedMs = 0
    tellAt = silenceMs
    return
  }
  blockedMs = silentMs
  if (silentMs < tellAt) return
  tellAt *= 2
  log.error(facts, 'the event loop is blocked: no run of this node moves, nobody is answered')
}

setInterval(look, LOOK_MS)
