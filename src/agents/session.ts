import { messageOf, SessionClosed } from '../errors.ts'
import type { Json } from '../json.ts'
import type { RunMessage } from '../runtime/messages.ts'
import type { CallRow } from '../store/rows.ts'
import type { Agent } from './agent.ts'
import { RunContext } from './context.ts'
import { OUTPUT_TOO_LARGE, toJson } from './values.ts'

/** What an executor needs to run one attempt; plain JSON, so that it can cross a thread or a wire. */
export interface Job {
  run_id: string
  conversation_id: string
  agent: string
  attempt: number
  input: Json
  /** The envelope so far, in the order of the agent's calls. */
  calls: CallRow[]
}

export type SessionMessage = Extract<
  RunMessage,
  {
    type:
      | 'call.recorded'
      | 'progress.reported'
      | 'tool.started'
      | 'tool.finished'
      | 'run.completed'
      | 'run.failed'
      | 'session.exited'
      | 'attempt.handed_over'
  }
>

/** The seam between an executor session and the actor of its run. A session reports; it never writes status itself. */
export interface SessionPort {
  /** Decided in the order sent. */
  send(message: SessionMessage): void
  /**
   * Resolves when everything sent is committed and the node may act: what an effect waits for.
   * @throws SessionClosed when the run is no longer ours
   */
  barrier(): Promise<void>
  /** Progress without a record. */
  beat(): void
}

/** How a session is told to end: at its next boundary (cancel, drain) or at once (kill). */
export class SessionControl {
  /** Aborts whatever may be left undone at a cancel: thinking, waiting, calls that change nothing outside. */
  readonly soft = new AbortController()
  /** Aborts calls that can be invoked again elsewhere. */
  readonly drained = new AbortController()
  readonly hard = new AbortController()

  cancel(): void {
    this.soft.abort(new SessionClosed('the run was cancelled'))
  }

  drain(): void {
    this.drained.abort(new SessionClosed('the node is draining'))
  }

  kill(): void {
    this.hard.abort(new SessionClosed('the session was ended'))
  }

  get ending(): boolean {
    return this.soft.signal.aborted || this.drained.signal.aborted || this.hard.signal.aborted
  }
}

/**
 * Runs one attempt of a run to its end and reports how it ended. Never throws: a failure is a message. A cancel or
 * hand-over that the code answers with an error of its own is still a cancel or hand-over.
 */
export async function runSession(
  agent: Agent,
  job: Job,
  port: SessionPort,
  control: SessionControl,
): Promise<void> {
  // A cancel that came before the start is consumed here: nothing of the agent runs.
  if (reportEnding(port, control)) return
  const context = new RunContext(agent, job, port, control)
  try {
    const output = toJson(await agent.run(context))
    await context.quiet()
    if (reportEnding(port, control)) return
    if (output.size > OUTPUT_TOO_LARGE.limit)
      return port.send({ type: 'run.failed', ...OUTPUT_TOO_LARGE.failure })
    port.send({ type: 'run.completed', output: output.value, size: output.size })
  } catch (error) {
    await context.quiet()
    if (reportEnding(port, control)) return
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
