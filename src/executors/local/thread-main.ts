/** The inside of an executor thread: one attempt, then the end of the thread. */
import { parentPort, workerData } from 'node:worker_threads'
import { Outbound } from '../../agents/outbound.ts'
import { createRegistry } from '../../agents/registry.ts'
import { runSession } from '../../agents/session.ts'
import { SessionControl } from '../../agents/control.ts'
import type { SessionMessage, SessionPort } from '../../agents/port.ts'
import { systemClock } from '../../clock.ts'
import { SessionClosed } from '../../errors.ts'
import type { FromThread, ThreadData, ToThread } from './thread.ts'

const data = workerData as ThreadData
const deadline = new Float64Array(data.deadline)
const control = new SessionControl()
const barriers = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()
let asked = 0

const post = (message: FromThread): void => parentPort?.postMessage(message)

function cleared(): Promise<void> {
  asked += 1
  const id = asked
  return new Promise((resolve, reject) => {
    barriers.set(id, { resolve, reject })
    post({ type: 'barrier', id })
  })
}

const port: SessionPort = {
  send: (message: SessionMessage) => post({ type: 'send', message }),
  beat: () => post({ type: 'beat' }),
  async barrier() {
    // The answer may have been on its way while the process was frozen: the deadline is checked here, at the last moment.
    do await cleared()
    while (systemClock.monotonicMs() >= (deadline[0] ?? 0))
  },
}

parentPort?.on('message', (message: ToThread) => {
  if (message.type === 'cancel') return control.cancel()
  if (message.type === 'drain') return control.drain()
  const barrier = barriers.get(message.id)
  barriers.delete(message.id)
  if (message.type === 'cleared') barrier?.resolve()
  else barrier?.reject(new SessionClosed('the run is not ours any more'))
})

const outbound = new Outbound(data.allow)
const agent = createRegistry(outbound).find(data.job.agent)
if (!agent) throw new Error(`the agent ${data.job.agent} is not known in this thread`)
await runSession(agent, data.job, port, control)
await outbound.close()
parentPort?.close()
