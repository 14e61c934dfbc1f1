/** Everything that a run can wait for so far: a closed list. */
export const GATES = [
  'lane.held_by',
  'not_before',
  'queue.paused',
  'queue.at_capacity',
  'queue.no_node',
  'tool.in_flight',
  'model.no_progress',
  'turn.exceeded',
  'executor.unresponsive',
  'child.waiting',
  'human.waiting',
  'signal.waiting',
  'cancel.unacknowledged',
  'node.lost',
  'waker.missing',
  'cycle',
  'progressing',
] as const
export type Gate = (typeof GATES)[number]
