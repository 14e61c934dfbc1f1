import type { SessionPort } from '../agents/port.ts'
import { SessionClosed } from '../errors.ts'
import type { Json } from '../json.ts'
import type { RunActor, Settled } from './durable.ts'
import type { Lease } from './lease.ts'
import type { MessageOf, RunMessage } from './messages.ts'

export interface SessionPortOptions {
  actor: RunActor
  lease: Lease
  /** False as soon as nothing that the session says counts any more. */
  isOpen: () => boolean
  /** Resolves when the run may be fed: at once, unless it is stuck. */
  fed: () => Promise<void>
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
  fed,
  onSaid,
  onLate,
}: SessionPortOptions): SessionPort {
  const closed = (): SessionClosed => new SessionClosed('the run is not ours any more')
  const committed = (
    message: { type: 'barrier.asked' } | MessageOf<'tool.started'>,
  ): Promise<boolean> =>
    new Promise((resolve, reject) => {
      if (!isOpen()) return reject(closed())
      const settled: Settled = (refusal) => {
        if (refusal === undefined || refusal === 'not_accepted') resolve(refusal === undefined)
        else reject(closed())
      }
      actor.send({ ...message, settled })
      if (message.type === 'tool.started') onSaid(message)
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
    send: (message) => {
      if (!isOpen()) {
        if (message.type === 'run.completed') onLate(message.output)
        return
      }
      actor.send(message)
      onSaid(message)
    },
    beat: () => {},
    begin: async (call) => (await committed({ type: 'tool.started', call })) && mayAct(),
    barrier,
    clearance: async () => {
      await fed()
      await barrier()
    },
  }
}
