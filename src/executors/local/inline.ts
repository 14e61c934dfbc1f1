import type { Agent } from '../../agents/agent.ts'
import type { SessionTools } from '../../agents/context.ts'
import { SessionControl } from '../../agents/control.ts'
import { END_MESSAGES, type Job, type SessionMessage, type SessionPort } from '../../agents/port.ts'
import { runSession } from '../../agents/session.ts'
import type { Session } from './session.ts'

/** Runs an attempt on the main thread: for agents whose steps cannot block it. */
export function startInline(
  { agent, tools }: { agent: Agent; tools: SessionTools },
  job: Job,
  port: SessionPort,
): Session {
  const control = new SessionControl()
  let isOver = false
  let ending: SessionMessage | null = null
  const reported: SessionPort = {
    ...port,
    send: (message) => {
      if (END_MESSAGES.has(message.type)) ending = message
      port.send(message)
    },
  }
  port.begun()
  void runSession(agent, job, reported, control, tools).finally(() => {
    isOver = true
  })
  return {
    silentMs: 0,
    probe: () => (isOver ? 'absent' : 'alive'),
    result: async () => ending,
    timeouts: {},
    onOrphan: 'keep',
    cancel: () => control.cancel(),
    drain: () => control.drain(),
    kill: () => control.kill(),
  }
}
