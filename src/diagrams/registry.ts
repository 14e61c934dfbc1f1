import type { AnyStateMachine } from 'xstate'
import { NODE_MACHINE_VERSION, nodeMachine } from '../../machines/node.ts'
import { RUN_MACHINE_VERSION, runMachine } from '../../machines/run.ts'
import { SUPERVISOR_MACHINE_VERSION, supervisorMachine } from '../../machines/supervisor.ts'

/** A machine with what its page says of it. */
export interface RegisteredMachine {
  machine: AnyStateMachine
  version: number
  /** Its file in `machines/`. */
  file: string
  /** Its life in one paragraph of Markdown. */
  life: string
}

/** Every chart that is drawn and served, in the order of `machines/README.md`. */
export const MACHINES: readonly RegisteredMachine[] = [
  {
    machine: runMachine,
    version: RUN_MACHINE_VERSION,
    file: 'run.ts',
    life:
      'A run is queued, or waits behind an older run of its lane. Claimed by a node, it is `active`: ' +
      'an executor session thinks, calls tools and delegates to children. A question to a human parks ' +
      'it without memory or lane, and the answer puts it back in line. A crash costs it the attempt, ' +
      'not its life: it resumes from its record, or asks a human once it has crashed in a loop. It ' +
      'ends in one of four terminal states, of which `failed` and `timed_out` may be resumed.',
  },
  {
    machine: nodeMachine,
    version: NODE_MACHINE_VERSION,
    file: 'node.ts',
    life:
      'A node is one process of the service. It registers under a new epoch, serves runs, and on ' +
      'request drains: it claims nothing more and ends once its runs ended their step or were ' +
      'handed over.',
  },
  {
    machine: supervisorMachine,
    version: SUPERVISOR_MACHINE_VERSION,
    file: 'supervisor.ts',
    life:
      'The supervisor is the root of a node. One clock ticks it. When the clock stood still, so did ' +
      'the process: its runs are forgiven that time. With each look the watchdog flags the hosted runs ' +
      'that are stuck, and where asked ends them; with each pass the reconciler repairs what nobody else ' +
      'would notice, one node at a time. Where too many would be ended at once, either holds its fire.',
  },
]
