import { messageOf } from '../errors.ts'
import type { Agent } from './agent.ts'
import { RunContext, type SessionTools } from './context.ts'
import type { SessionControl } from './control.ts'
import type { Job, SessionPort } from './port.ts'
import { OUTPUT_TOO_LARGE, toJson } from './values.ts'

/**
 * Runs one attempt of a run to its end and reports how it ended. Never throws: a failure is a message. A cancel or
 * hand-over that the code answers with an error of its own is still a cancel or hand-over.
 */
export async function runSession(
  agent: Agent,
  job: Job,
  port: SessionPort,
  control: SessionControl,
  tools: SessionTools,
): Promise<void> {
  // A cancel that came before the start is consumed here: nothing of the agent runs.
  if (reportEnding(port, control)) return
  const context = new RunContext(agent, job, port, control, tools)
  const { desk } = context
  try {
    const output = toJson(await agent.run(context))
    await desk.quiet()
    // Ended by force, and it has a result all the same: nobody acts on that any more, but it is not thrown away.
    if (control.hard.signal.aborted && output.size <= OUTPUT_TOO_LARGE.limit)
      return port.send({ type: 'run.completed', output: output.value, size: output.size })
    if (reportEnding(port, control)) return
    desk.finished()
    desk.settleFailures()
    if (output.size > OUTPUT_TOO_LARGE.limit)
      return port.send({ type: 'run.failed', ...OUTPUT_TOO_LARGE.failure })
    port.send({ type: 'run.completed', output: output.value, size: output.size })
  } catch (thrown) {
    await desk.quiet()
    if (reportEnding(port, control)) return
    const error = desk.fault ?? thrown
    port.send({
      type: 'run.failed',
      code: codeOf(error),
      message: messageOf(error) || 'the agent threw an error',
    })
  }
}

/** True when the session was told to end, and that has been reported. */
function reportEnding(port: SessionPort, control: SessionControl): boolean {
  if (control.hard.signal.aborted) return true
  if (control.soft.signal.aborted) {
    port.send({ type: 'session.exited' })
    return true
  }
  if (control.drained.signal.aborted) {
    port.send({ type: 'attempt.handed_over' })
    return true
  }
  return false
}

function codeOf(error: unknown): string {
  const code =
    typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
  return typeof code === 'string' && /^[a-z_]{1,64}$/.test(code) ? code : 'agent_error'
}
