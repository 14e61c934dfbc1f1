/**
 * The life of one run, from the line of its lane to a terminal state.
 *
 * Pure: it decides and names effects, it performs nothing. `durable(machine)` in `src/runtime` turns it into an actor
 * that commits each decision before it acts on it. Diagram: `machines/README.md`.
 *
 * Who sends what: SQL sends `run.due`, `lane.granted` and `run.claimed` (it decides lane order and claims, inside the
 * commit); the executor session sends what the agent does; callers and operators send commands through the inbox; the
 * node that hosts the run sends `attempt.*` and `cancel.expired`, its watchdog `stuck.*`, the
 * reconciler of any node `queue.expired`.
 */
import { newContext, runSetup } from './run-setup.ts'

/** Bumped with every change of this chart that a stored snapshot could notice; `upgrade` then learns the step. */
export const RUN_MACHINE_VERSION = 3

/** A call has ended: the run moves, whatever was found of it but that another call hangs. */
const moved = ['progress', 'recover', 'noteCall', 'noteStuck'] as const
/** So does it when it comes to a call. */
const arrived = ['recover', 'noteStuck'] as const
const begun = [...arrived, 'noteCall'] as const
const reported = [
  'recover',
  { type: 'workBeside', params: ({ event }: { event: { works_beside?: true } }) => event },
  'noteProgress',
  'noteStuck',
] as const
const ended = ['noteOutcome', 'endSession'] as const
/** A lost attempt is followed by the next one, or by none. */
const takenUp = ['openNextAttempt', 'noteLost', 'noteStuck', 'endSession', 'startSession'] as const
const givenUp = ['noteLost', ...ended] as const
const cancelledAtOnce = {
  target: '#run.terminal.cancelled',
  actions: ['noteCancel', 'noteOutcome'],
} as const
const resumed = {
  target: '#run.queued',
  actions: ['forgetLosses', 'recountChildren', 'noteResumeRequest'],
} as const
const asked = {
  target: '#run.waiting_on_human',
  actions: [
    { type: 'ask', params: ({ event }: { event: { questions: number } }) => event },
    'noteQuestions',
    'noteStuck',
    'leaveLaneUnlessHeld',
    'endSession',
  ],
} as const

export const runMachine = runSetup.createMachine({
  id: 'run',
  context: ({ input }) => newContext(input),
  initial: 'queued',
  options: { maxIterations: 100 },
  states: {
    queued: {
      description:
        'Not yet picked up by a node; holds the turn of its lane, or waits for its run_at.',
      meta: { wakers: ['run.claimed', 'run.due'] },
      always: { guard: 'belongsInLine', target: 'waiting_on_lane' },
      on: {
        'run.due': { actions: 'becomeDue' },
        'queue.expired': {
          guard: 'isDue',
          target: 'terminal.failed',
          actions: ['noteVerdict', 'noteOutcome'],
        },
        'run.claimed': [
          {
            guard: 'isFirstAttempt',
            target: 'active.running',
            actions: ['openAttempt', 'startSession'],
          },
          {
            guard: 'holdsLane',
            target: 'active.resuming',
            actions: ['openAttempt', 'startSession'],
          },
        ],
        'cancel.requested': cancelledAtOnce,
      },
    },
    waiting_on_lane: {
      description: 'Another run of this lane is ahead of it.',
      meta: { wakers: ['lane.granted'] },
      on: {
        'lane.granted': { target: 'queued', actions: 'takeLane' },
        'queue.expired': { target: 'terminal.failed', actions: ['noteVerdict', 'noteOutcome'] },
        'input.replaced': { actions: 'noteInput' },
        'cancel.requested': cancelledAtOnce,
      },
    },
    active: {
      tags: 'active',
      description: 'The lane is held and an executor session is attached.',
      initial: 'running',
      exit: 'unflag',
      on: {
        // Flagged, not torn down: who is stuck may recover.
        'stuck.noted': {
          guard: 'isNotStuck',
          actions: [{ type: 'flag', params: ({ event }) => event }, 'noteStuck'],
        },
        'stuck.cleared': { guard: 'isStuck', actions: ['unflag', 'noteStuck'] },
        // Ended by force: what is stuck cannot be asked.
        'run.recycled': {
          guard: { type: 'isRecyclable', params: ({ event }) => event },
          target: 'terminal.failed',
          actions: ['noteVerdict', 'noteOutcome', 'endSession'],
        },
        // What the watchdog would have done, were it allowed to.
        'verdict.noted': { actions: 'noteVerdict' },
        'readers.gone': { guard: 'isWell', actions: ['loseReaders', 'noteReaders'] },
        'readers.back': { guard: 'isOrphan', actions: ['findReaders', 'noteReaders'] },
        'turn.extended': { actions: ['unflagTurn', 'noteExtended', 'noteStuck'] },
        'run.completed': { target: 'terminal.completed', actions: ended },
        'run.failed': { target: 'terminal.failed', actions: ended },
        'cancel.requested': {
          target: '.cancel_requested',
          actions: ['noteCancel', 'cancelSession'],
        },
        // Its code has ended without waiting for them.
        'children.dismissed': { guard: 'hasChild', actions: 'noteDismissal' },
        // What was found of an attempt is over with it: noted, so that the next one may be found so anew.
        'attempt.handed_over': {
          target: 'queued',
          actions: ['handOver', 'noteStuck', 'endSession'],
        },
        'attempt.lost': [
          {
            guard: { type: 'isCrashLoop', params: ({ event }) => event },
            target: 'waiting_on_human',
            actions: [
              'countLoss',
              { type: 'ask', params: { questions: 1 } },
              'noteLost',
              'noteStuck',
              'noteQuestions',
              'leaveLaneUnlessHeld',
              'endSession',
            ],
          },
          {
            guard: { type: 'isAutomatic', params: ({ event }) => event },
            target: '.resuming',
            actions: ['countLoss', ...takenUp],
          },
          { target: 'terminal.timed_out', actions: ['countLoss', ...givenUp] },
        ],
      },
      states: {
        resuming: {
          description:
            'Rehydrating: loading the recorded calls and looking for calls of unknown outcome.',
          meta: { wakers: ['session.ready', 'attempt.lost'] },
          on: {
            'session.ready': { target: 'running', actions: 'noteResumed' },
            'human.asked': asked,
          },
        },
        running: {
          description: 'Thinking, streaming, between steps.',
          meta: { wakers: ['run.completed', 'attempt.lost'] },
          on: {
            'call.recorded': { actions: moved },
            'progress.reported': { actions: reported },
            'tool.started': { target: 'waiting_on_tool', actions: ['enterTool', ...begun] },
            'child.started': { target: 'waiting_on_child', actions: ['enterChild', ...begun] },
            // After a resume: it was delegated by an earlier attempt.
            'child.awaited': { target: 'waiting_on_child', guard: 'hasChild', actions: arrived },
            'human.asked': asked,
          },
        },
        waiting_on_tool: {
          description: 'A tool call (or a batch) is in flight.',
          meta: { wakers: ['tool.finished', 'attempt.lost'] },
          on: {
            'tool.started': { actions: ['enterTool', ...begun] },
            'tool.finished': [
              { guard: 'isLastCall', target: 'running', actions: ['leaveTool', ...moved] },
              { guard: 'isLastTool', target: 'waiting_on_child', actions: ['leaveTool', ...moved] },
              { actions: ['leaveTool', ...moved] },
            ],
            // Asked for together with tools: their clock is the one that counts.
            'child.started': { actions: ['enterChild', ...begun] },
            'child.reported': {
              guard: 'hasChild',
              actions: ['leaveChild', ...moved],
            },
            'call.recorded': { actions: moved },
            'progress.reported': { actions: reported },
          },
        },
        waiting_on_child: {
          description: 'Waiting for delegated child runs.',
          meta: { wakers: ['child.reported', 'attempt.lost'] },
          on: {
            'child.started': { actions: ['enterChild', ...begun] },
            'tool.started': { target: 'waiting_on_tool', actions: ['enterTool', ...begun] },
            'call.recorded': { actions: moved },
            'progress.reported': { actions: reported },
            'child.reported': [
              {
                guard: 'isLastChild',
                target: 'running',
                actions: ['leaveChild', ...moved],
              },
              { actions: ['leaveChild', ...moved] },
            ],
            // No step towards a crash loop.
            'attempt.lost': {
              guard: { type: 'isInnocent', params: ({ event }) => event },
              target: 'resuming',
              actions: takenUp,
            },
          },
        },
        cancel_requested: {
          description:
            'The loop exits at its next safe boundary; what is in flight may end and is recorded.',
          meta: { wakers: ['session.exited', 'child.reported', 'cancel.expired', 'attempt.lost'] },
          on: {
            // A second cancel is noted and changes nothing.
            'cancel.requested': { actions: 'noteCancel' },
            'tool.finished': { guard: 'hasTool', actions: ['leaveTool', ...moved] },
            'child.reported': { guard: 'hasChild', actions: ['leaveChild', ...moved] },
            'call.recorded': { actions: moved },
            // The tree ends before its root: with children to wait for, the session's end is not the run's.
            'session.exited': {
              guard: 'hasNoChild',
              target: '#run.terminal.cancelled',
              actions: ended,
            },
            // Returning or throwing is a boundary as well: the cancel was first.
            'run.completed': { target: '#run.terminal.cancelled', actions: ended },
            'run.failed': { target: '#run.terminal.cancelled', actions: ended },
            'cancel.expired': { target: '#run.terminal.cancelled', actions: ended },
            'attempt.handed_over': { target: '#run.terminal.cancelled', actions: ended },
            'attempt.lost': [
              { guard: 'hasChild', actions: ['noteLost', 'endSession'] },
              { target: '#run.terminal.cancelled', actions: givenUp },
            ],
          },
        },
      },
    },
    waiting_on_human: {
      tags: 'parked',
      description: 'Parked: nothing of it is in memory until a human answers.',
      meta: { wakers: ['human.answered'] },
      on: {
        'human.answered': [
          {
            guard: 'isLastAnswer',
            target: 'queued',
            actions: ['answer', 'forgetLosses', 'noteAnswer'],
          },
          { actions: ['answer', 'noteAnswer'] },
        ],
        'cancel.requested': cancelledAtOnce,
      },
    },
    terminal: {
      tags: 'terminal',
      description: 'Nothing but a resume leaves it.',
      initial: 'completed',
      entry: ['leaveLane', 'endCalls'],
      states: {
        completed: { description: 'The agent has returned.' },
        failed: {
          description: 'The agent, or the runtime on its behalf, gave up; the error says why.',
          on: { 'resume.requested': resumed },
        },
        cancelled: { description: 'Ended on request; never resumed.' },
        timed_out: {
          description: 'Its attempt was lost and not taken up again by itself.',
          on: { 'resume.requested': resumed },
        },
      },
    },
  },
})

export type RunMachine = typeof runMachine
