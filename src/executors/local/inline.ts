import type { Agent } from '../../agents/agent.ts'
import type { SessionTools } from '../../agents/context.ts'
import { SessionControl } from '../../agents/control.ts'
import type { Job, SessionPort } from '../../agents/port.ts'
import { runSession } from '../../agents/session.ts'
import type { Session } from './session.ts'

/** Runs an attempt on the main thread: for agents whose steps cannot block it. */
export function startInline(
  { agent, tools }: { agent: Agent; tools: SessionTools },
  job: Job,
  port: SessionPort,
): Session {
  const control = new SessionControl()
  void runSession(agent, job, port, control, tools)
  return {
    silentMs: 0,
    timeouts: {},
    cancel: () => control.cancel(),
    drain: () => control.drain(),
    kill: () => control.kill(),
  }
}
