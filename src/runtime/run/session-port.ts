import type { ChildReport, SessionCall, SessionMessage, SessionPort } from '../../agents/port.ts'
import { SessionClosed } from '../../errors.ts'
import type { Json } from '../../json.ts'
import { reportLetter } from './delegation.ts'
import type { RunActor, Settled } from './durable.ts'
import type { Lease } from '../lease.ts'
import type { Letter, MessageOf, RunMessage } from './messages.ts'
import { signalLetter, type Signals } from './signals.ts'

export interface SessionPortOptions {
  actor: RunActor
  lease: Lease
  /** False as soon as nothing that the session says counts any more. */
  isOpen: () => boolean
  /** The executor has begun it. */
  onBegun: () => void
  /** The run has come to the start of something new. Resolves when it may be fed: at once, unless it is stuck. */
  fed: () => Promise<void>
  /** What became of a run that this one has delegated. */
  reportOf: (childRunId: string) => Promise<ChildReport>
  signals: Signals
  /** What a run says that is parked for the signals of these calls. */
  askForSignals: (calls: SessionCall[]) => MessageOf<'human.asked'>
  /** Told of all that the session says, when it is decided. */
  onSaid: (message: RunMessage) => void
  /** Told of a result that comes when nothing counts any more. */
  onLate: (output: Json) => void
}

/**
 * The port of one session: what it says is decided by the actor of its run, and what it wants to do waits for the commit,
 * the lease, and while the run is stuck for its recovery.
 */
export function sessionPort({
  actor,
  lease,
  isOpen,
  onBegun,
  fed,
  reportOf,
  signals,
  askForSignals,
  onSaid,
  onLate,
}: SessionPortOptions): SessionPort {
  const closed = (): SessionClosed => new SessionClosed('the run is not ours any more')
  const committed = (
    message:
      | { type: 'barrier.asked' }
      | MessageOf<'tool.started'>
      | MessageOf<'child.started'>
      | MessageOf<'human.asked'>,
  ): Promise<boolean> =>
    new Promise((resolve, reject) => {
      if (!isOpen()) return reject(closed())
      const settled: Settled = (refusal) => {
        if (refusal === undefined || refusal === 'not_accepted') resolve(refusal === undefined)
        else reject(closed())
      }
      actor.send({ ...message, settled })
      if (message.type !== 'barrier.asked') onSaid(message)
    })
  const mayAct = async (): Promise<true> => {
    while (!lease.held) await lease.whenHeld()
    if (!isOpen()) throw closed()
    return true
  }
  const barrier = async (): Promise<void> => {
    await committed({ type: 'barrier.asked' })
    await mayAct()
  }
  return {
    begun: () => {
      if (isOpen()) onBegun()
    },
    send: (message) => {
      if (!isOpen()) {
        if (message.type === 'run.completed') onLate(message.output)
        return
      }
      const letter = letterOf(message)
      if (letter?.kind === 'signal') {
        // One that an earlier session was given is unread again.
        if (!signals.isGiven(letter.dedupe_key)) return
        actor.send({ ...message, letter, settled: () => signals.settled(letter.dedupe_key) })
      } else actor.send({ ...message, ...(letter ? { letter } : {}) })
      onSaid(message)
    },
    beat: () => {},
    begin: async (call, timeout_ms) =>
      (await committed({ type: 'tool.started', call, timeout_ms })) && mayAct(),
    delegate: async (call, child) =>
      (await committed({ type: 'child.started', call, child })) && mayAct(),
    reportOf: (childRunId) => (isOpen() ? reportOf(childRunId) : Promise.reject(closed())),
    signalNamed: (name) => (isOpen() ? signals.next(name) : Promise.reject(closed())),
    park: (calls) => committed(askForSignals(calls)),
    barrier,
    clearance: async () => {
      await fed()
      await barrier()
    },
  }
}

/** What came through the inbox is consumed by the decision on it. */
function letterOf(message: SessionMessage): Letter | undefined {
  if (message.type === 'child.reported') return reportLetter(message.report.child_run_id)
  return message.type === 'call.recorded' && message.signal
    ? signalLetter(message.signal)
    : undefined
}
