import type { AgentRegistry } from '../../agents/registry.ts'
import type { Job, SessionPort } from '../../agents/port.ts'
import { startInline } from './inline.ts'
import type { Session } from './session.ts'
import { startThread } from './thread.ts'

export interface LocalExecutorOptions {
  agents: AgentRegistry
  /** The lease deadline that threads check themselves. */
  deadline: SharedArrayBuffer
  allow: readonly string[]
}

/** Starts an attempt of a run; `onLost` tells that it ended without a word. */
export type StartSession = (
  job: Job,
  port: SessionPort,
  onLost: (reason: string) => void,
) => Session

/** Runs agents of this service: on the main thread where their steps cannot block it, else in a thread of their own. */
export function localExecutor({ agents, deadline, allow }: LocalExecutorOptions): StartSession {
  return (job, port, onLost) => {
    const agent = agents.find(job.agent)
    if (!agent) {
      port.send({
        type: 'run.failed',
        code: 'unknown_agent',
        message: `this node does not know the agent ${job.agent}`,
      })
      return ENDED
    }
    if (agent.needsThread?.(job.input)) return startThread({ job, deadline, allow }, port, onLost)
    return startInline(agent, job, port)
  }
}

const ENDED: Session = { cancel: () => {}, drain: () => {}, kill: () => {} }
