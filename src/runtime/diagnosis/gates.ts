/**
 * Everything that a run can wait for: a closed list, worst first, so that of several causes the one that comes first here
 * is told first. Of each: what it means, and what an operator can do about it.
 */
const MEANINGS = {
  cycle: ['runs that wait for each other in a circle', 'cancel the run that it names'],
  'node.lost': [
    'its node has not renewed its lease',
    'another node takes it over within seconds, or makes it `timed_out` (`RUNLANE_RECOVERY=manual`); where none serves, start one',
  ],
  'executor.unresponsive': ['its executor shows no sign of life', 'stop it or recycle it'],
  'turn.exceeded': ['its turn took longer than it may', 'extend it, stop it or recycle it'],
  'model.no_progress': ['a step without progress', 'stop it or recycle it'],
  'waker.missing': [
    'what would wake it is not there: a free lane whose turn nobody was given, the report of a run that has ended, a question that nobody was asked',
    'the next pass of the reconciler mends lanes and reports; what has no question is cancelled',
  ],
  'queue.no_node': ['no node serves', 'start a node'],
  'queue.paused': ['its queue is paused', 'resume the queue'],
  'queue.at_capacity': [
    'its queue, or every node, runs as many as it may',
    'raise the concurrency of the queue; where nodes are full, stop or recycle the run that it names, or start a node',
  ],
  'cancel.unacknowledged': [
    'it was asked to cancel and has not come to its next boundary',
    'wait for the deadline: it is ended hard then',
  ],
  'human.waiting': ['it has asked somebody, or waits for a waitpoint', 'answer it'],
  'signal.waiting': ['it waits for a signal', 'send it: `POST /runs/{run_id}/signal`'],
  'tool.in_flight': [
    'a tool call has not come back; stuck where its clock is over',
    'wait for it, or cancel the run; stop or recycle a stuck one',
  ],
  'child.waiting': ['it waits for a run that it has delegated', 'see the causes of that run'],
  'lane.held_by': ['another run of its lane goes first', 'see the causes of that run'],
  not_before: ['it is not to begin before its `run_at`', 'wait, or cancel it'],
  progressing: ['nothing is wrong: it works', 'nothing; its clock is over at the deadline'],
} as const satisfies Record<string, readonly [means: string, action: string]>

export type Gate = keyof typeof MEANINGS

/** Worst first. */
export const GATES = Object.keys(MEANINGS) as Gate[]

/** The gates as a Markdown table for the README. */
export const gateTable = (): string =>
  [
    '| gate | means | what to do |',
    '| --- | --- | --- |',
    ...Object.entries(MEANINGS).map(
      ([gate, [means, action]]) => `| \`${gate}\` | ${means} | ${action} |`,
    ),
  ].join('\n')
