import type { SessionPort } from '../agents/port.ts'
import { SessionClosed } from '../errors.ts'
import type { RunActor, Settled } from './durable.ts'
import type { Lease } from './lease.ts'
import type { MessageOf } from './messages.ts'

/**
 * The port of one session: what it says is decided by the actor of its run, and what it wants to do waits for the commit
 * and the lease. Closed as soon as `isOpen` says no: from then on nothing that it says counts.
 */
export function sessionPort(actor: RunActor, lease: Lease, isOpen: () => boolean): SessionPort {
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
    })
  const mayAct = async (): Promise<true> => {
    while (!lease.held) await lease.whenHeld()
    if (!isOpen()) throw closed()
    return true
  }
  return {
    send: (message) => {
      if (isOpen()) actor.send(message)
    },
    beat: () => {},
    begin: async (call) => (await committed({ type: 'tool.started', call })) && mayAct(),
    barrier: async () => {
      await committed({ type: 'barrier.asked' })
      await mayAct()
    },
  }
}
