import type { Agent } from '../../agents/agent.ts'
import type { SessionTools } from '../../agents/context.ts'
import type { AgentDirectory } from '../../agents/directory.ts'
import type { Job, SessionPort } from '../../agents/port.ts'
import { scriptBlocks } from '../../agents/scripted.ts'
import type { AgentCard } from '../../agents/source.ts'
import { messageOf } from '../../errors.ts'
import { startInline } from './inline.ts'
import { LateSession, type ThreadPool } from './pool.ts'
import type { Session } from './session.ts'

export interface LocalExecutorOptions {
  agents: AgentDirectory
  /** Runs a read until the database answers: the attempt waits meanwhile. */
  retried: <T>(read: () => Promise<T>) => Promise<T>
  /** Does the scripts that cannot block. */
  scripted: { agent: Agent; tools: SessionTools }
  pool: ThreadPool
}

/** Starts an attempt of a run; `onLost` tells that it ended without a word. */
export type StartSession = (
  job: Job,
  port: SessionPort,
  onLost: (reason: string) => void,
) => Session

/**
 * Runs agents of this service: scripts whose steps cannot block on the main thread, everything else in threads, so that
 * no agent's code can hold up another's runs, the supervisor or the HTTP server.
 */
export function localExecutor(options: LocalExecutorOptions): StartSession {
  const { agents, retried, scripted, pool } = options

  const inThread = (
    card: AgentCard,
    job: Job,
    port: SessionPort,
    onLost: (reason: string) => void,
  ): Session => {
    const alone = card.isolation === 'thread' || card.takes === 'script'
    const { source, timeouts, on_orphan } = card
    return pool.start({ job, source, timeouts, on_orphan }, alone, port, onLost)
  }

  const open = async (
    job: Job,
    late: LateSession,
    port: SessionPort,
    onLost: (reason: string) => void,
  ): Promise<void> => {
    const card = await retried(() => agents.find(job.agent))
    if (late.killed) return
    if (card) return late.attach(inThread(card, job, port, onLost))
    const why = await retried(() => agents.whyUnknown(job.agent))
    const message = `this node does not have the agent ${job.agent}: it ${why}`
    port.send({ type: 'run.failed', code: 'unknown_agent', message })
  }

  return (job, port, onLost) => {
    const local = agents.findLocal(job.agent)
    if (local?.takes === 'script' && !scriptBlocks(job.input))
      return startInline(scripted, job, port)
    if (local) return inThread(local, job, port, onLost)
    const late = new LateSession()
    open(job, late, port, onLost).catch((error: unknown) =>
      onLost(`the agent could not be looked up: ${messageOf(error)}`),
    )
    return late
  }
}
