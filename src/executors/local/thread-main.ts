/** The inside of an executor thread: agent code of several runs beside each other, each reporting through its own port. */
import process from 'node:process'
import { workerData } from 'node:worker_threads'
import { openAgent, type AgentOpeners } from '../../agents/open.ts'
import { McpConnections } from '../../agents/mcp.ts'
import { importAgent, resolveRunlane } from '../../agents/modules.ts'
import { Outbound } from '../../agents/outbound.ts'
import { cardOf } from '../../agents/source.ts'
import { systemClock } from '../../clock.ts'
import { messageOf } from '../../errors.ts'
import { modelFinder } from '../../providers/models.ts'
import { asSession, guardThread } from './thread-guard.ts'
import type { Description, FromThread, ThreadData, ToThread } from './thread-messages.ts'
import { ThreadSession } from './thread-session.ts'

const data = { ...(workerData as ThreadData) }
// Agent code can read what is there: it must not find our line to the main thread.
Reflect.deleteProperty(workerData as ThreadData, 'port')
const deadline = new Float64Array(data.deadline)
const pulse = new Float64Array(data.pulse)
/** How often the thread shows that it is not blocked, in milliseconds. */
const PULSE_MS = 20

const post = (message: FromThread): void => data.port.postMessage(message)
const sessions = new Map<number, ThreadSession>()

guardThread(process, (session, message) => post({ type: 'uncaught', session, message }))
resolveRunlane()

const outbound = new Outbound(data.allow)
const onProcess = (pid: number, alive: boolean): void => post({ type: 'process', pid, alive })
const openers: AgentOpeners = {
  outbound,
  // As it is now: what an agent writes into it later must not change the providers of others.
  findModel: modelFinder({ ...process.env }),
  /** Servers that code names may be anywhere; those of posted agents go through the check of addresses. */
  trusted: new McpConnections({ version: data.version, onProcess }),
  checked: new McpConnections({ version: data.version, fetch: outbound.fetch }),
}

data.port.on('message', (message: ToThread) => {
  const { session } = message
  if (message.type === 'describe')
    return void asSession(session, () => describe(session, message.file))
  if (message.type !== 'start') return sessions.get(session)?.receive(message)
  const started = new ThreadSession(session, {
    post,
    mayAct: () => systemClock.monotonicMs() < (deadline[0] ?? 0),
    open: (source) => openAgent(source, openers),
    onOver: () => sessions.delete(session),
  })
  sessions.set(session, started)
  void started.run(message.assignment)
})

async function describe(session: number, file: string): Promise<void> {
  const description: Description = await importAgent(file).then(
    (agent) => ({ card: cardOf(agent, 'code', { from: 'module', file }) }),
    (error: unknown) => ({ problem: messageOf(error) }),
  )
  post({ type: 'described', session, description })
}

const beat = (): void => {
  pulse[0] = systemClock.monotonicMs()
}
beat()
setInterval(beat, PULSE_MS)
