import type { RunMachine } from '../../../machines/run.ts'
import type { RunEvent } from '../../../machines/run-setup.ts'
import type { HostedRow } from '../../store/rows.ts'
import { restoreChart } from './codec.ts'

/**
 * The events that a run's chart accepts now, by name: those with a transition in its state whose guards hold. Events of
 * lost attempts are judged under automatic recovery.
 */
export function acceptedEvents(machine: RunMachine, row: HostedRow): string[] {
  const chart = restoreChart(machine, row)
  return machine.events
    .filter((type) => !type.startsWith('xstate.'))
    .filter((type) => chart.can(sampleOf(type)))
    .toSorted()
}

const sampleOf = (type: string): RunEvent =>
  ({ type, questions: 1, recovery: 'auto', max_crashes: 3, reason: '' }) as unknown as RunEvent
