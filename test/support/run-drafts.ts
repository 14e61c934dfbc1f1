import { randomUUID } from 'node:crypto'
import { runMachine, type RunMachine } from '../../machines/run.ts'
import type { RunInput } from '../../machines/run-setup.ts'
import { encodeChart, newChart } from '../../src/runtime/run/codec.ts'
import type { CreateGroup, Flush, RunDraft } from '../../src/store/flush.ts'

const PLAIN: RunInput = { delayed: false, hold_lane_on_human: false }

/** A run to be created, alone in a lane of its own unless told otherwise. */
export function runDraft(
  changes: Partial<RunDraft> = {},
  input: RunInput = PLAIN,
  machine: RunMachine = runMachine,
): RunDraft {
  const run_id = changes.run_id ?? `run_${randomUUID()}`
  return {
    run_id,
    conversation_id: `conversation-of-${run_id}`,
    parent_run_id: null,
    root_run_id: run_id,
    agent: 'scripted',
    surface: 'api',
    created_by: 'test',
    owner: null,
    lane_key: `lane-of-${run_id}`,
    lane_policy: 'enqueue',
    front: false,
    queue: 'default',
    priority: 0,
    run_at: null,
    chart: encodeChart(newChart(machine, input)),
    idempotency_key: null,
    interrupt_command_id: null,
    input: { steps: [] },
    metadata: {},
    options: {},
    ...changes,
  }
}

export const groupOf = (...members: RunDraft[]): CreateGroup => ({
  group_id: randomUUID(),
  weight: 1000,
  careful: members.some(({ lane_policy }) => lane_policy !== 'enqueue'),
  members,
})

export const flushOf = (parts: Partial<Flush>): Flush => ({
  groups: [],
  records: [],
  deliveries: [],
  commands: [],
  audits: [],
  adopt: null,
  claim: null,
  ...parts,
})
