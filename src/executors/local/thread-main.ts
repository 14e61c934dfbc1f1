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
const waiting = new Map<
  number,
  { resolve: (accepted: boolean) => void; reject: (error: Error) => void }
>()
let asked = 0

const post = (message: FromThread): void => parentPort?.postMessage(message)

/** The answer may have been on its way while the process was frozen: the deadline is checked here, at the last moment. */
async function ask(question: (id: number) => FromThread): Promise<boolean> {
  const accepted = await answerTo(question)
  while (systemClock.monotonicMs() >= (deadline[0] ?? 0))
    await answerTo((id) => ({ type: 'barrier', id }))
  return accepted
}

function answerTo(question: (id: number) => FromThread): Promise<boolean> {
  asked += 1
  const id = asked
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject })
    post(question(id))
  })
}

const port: SessionPort = {
  send: (message: SessionMessage) => post({ type: 'send', message }),
  beat: () => post({ type: 'beat' }),
  begin: (call) => ask((id) => ({ type: 'begin', id, call })),
  barrier: async () => void (await ask((id) => ({ type: 'barrier', id }))),
}

parentPort?.on('message', (message: ToThread) => {
  if (message.type === 'cancel') return control.cancel()
  if (message.type === 'drain') return control.drain()
  const answered = waiting.get(message.id)
  waiting.delete(message.id)
  if (message.type === 'cleared') answered?.resolve(message.accepted)
  else answered?.reject(new SessionClosed('the run is not ours any more'))
})

const outbound = new Outbound(data.allow)
const agent = createRegistry(outbound).find(data.job.agent)
if (!agent) throw new Error(`the agent ${data.job.agent} is not known in this thread`)
await runSession(agent, data.job, port, control)
await outbound.close()
parentPort?.close()
