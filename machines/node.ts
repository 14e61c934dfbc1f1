/**
 * The life of one node: a process of the service. It is the root of the node's actor system; runs are actors in it.
 *
 * Pure: `src/runtime/node.ts` sends the events and does what the states allow. Diagram: `machines/README.md`.
 */
import { setup } from 'xstate'

export const NODE_MACHINE_VERSION = 1

export type NodeEvent =
  | { type: 'node.registered' }
  | { type: 'drain.requested' }
  | { type: 'drain.finished' }

const nodeSetup = setup({ types: {} as { events: NodeEvent; tags: 'claims' } })

export const nodeMachine = nodeSetup.createMachine({
  id: 'node',
  initial: 'starting',
  options: { maxIterations: 100 },
  states: {
    starting: {
      description: 'Migrates the schema and registers under a new epoch.',
      meta: { wakers: ['node.registered'] },
      on: { 'node.registered': 'serving', 'drain.requested': 'stopped' },
    },
    serving: {
      tags: 'claims',
      description: 'Claims runs, hosts them, renews its lease.',
      meta: { wakers: ['drain.requested'] },
      on: { 'drain.requested': 'draining' },
    },
    draining: {
      description: 'Claims nothing more; runs end their step or are handed over.',
      meta: { wakers: ['drain.finished'] },
      on: { 'drain.finished': 'stopped' },
    },
    stopped: { description: 'Its lease is given back.' },
  },
})
