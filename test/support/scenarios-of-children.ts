import { expect } from 'vitest'
import type { Run, RunStatus } from './api.ts'
import { eventually } from './eventually.ts'
import { BUSY_PARENT, HASTY, TOGETHER } from './scenario-agents.ts'
import { names, play, type Play, type Scenario, type Step } from './scenario.ts'

const child = (...steps: Step[]) => ({ agent: 'scripted', input: { steps } })
const slow = { think: 300 }

/** Runs that delegate to others. */
export const childScenarios: readonly Scenario[] = [
  {
    name: 'a run that delegates waits for its child, and goes on with its report',
    needs: ['active.running--child.started[0]', 'active.waiting_on_child--child.reported[0]'],
    async play({ service, deadlineMs }) {
      const { post, ends, history, events } = play(service, deadlineMs)
      const run = await post([{ delegate: child({ return: 7 }) }, { think: 5 }])
      expect(await ends(run)).toMatchObject({ output: { results: [{ output: 7 }, null] } })
      const waiting = ['running', 'waiting_on_child', 'running']
      expect(await history(run)).toEqual(['queued', ...waiting, 'completed'])
      expect(names(await events(run))).toContain('child_finished')
    },
  },
  {
    name: 'of several children each is told of, and the last one lets the run go on',
    needs: [
      'active.waiting_on_child--child.started[0]',
      'active.waiting_on_child--child.reported[1]',
    ],
    async play({ service, deadlineMs }) {
      const { post, ends, history, events } = play(service, deadlineMs)
      const run = await post([{ delegate_all: [child({ return: 1 }), child(slow)] }, { think: 5 }])
      expect(await ends(run)).toMatchObject({ status: 'completed', children: 2 })
      const told = names(await events(run)).filter((name) => name.startsWith('child_'))
      expect(told).toEqual(['child_started', 'child_started', 'child_finished', 'child_finished'])
      const waiting = ['running', 'waiting_on_child', 'running']
      expect(await history(run)).toEqual(['queued', ...waiting, 'completed'])
    },
  },
  {
    name: 'a tool call that outlasts a child is what the run waits for',
    needs: [
      'active.waiting_on_tool--child.started[0]',
      'active.waiting_on_tool--child.reported[0]',
      'active.waiting_on_tool--tool.finished[0]',
    ],
    async play({ service, deadlineMs }) {
      const { api, ends, history, events } = play(service, deadlineMs)
      const input = { tool: 600, child: 1 }
      const run = await api.createRun({ agent: TOGETHER.name, input })
      expect(await ends(run)).toMatchObject({ output: [600, { output: 1 }] })
      const waiting = ['running', 'waiting_on_tool', 'running']
      expect(await history(run)).toEqual(['queued', ...waiting, 'completed'])
      expect(names(await events(run))).toContain('child_finished')
    },
  },
  {
    name: 'a child that outlasts a tool call is what the run waits for then',
    needs: ['active.waiting_on_tool--tool.finished[1]'],
    async play({ service, deadlineMs }) {
      const { api, ends, history } = play(service, deadlineMs)
      const run = await api.createRun({ agent: TOGETHER.name, input: { tool: 250, child: 600 } })
      expect(await ends(run)).toMatchObject({ output: [250, { output: 600 }] })
      const waiting = ['running', 'waiting_on_tool', 'waiting_on_child', 'running']
      expect(await history(run)).toEqual(['queued', ...waiting, 'completed'])
    },
  },
  {
    name: 'a run that waits for a child may speak, step and call tools meanwhile',
    needs: [
      'active.waiting_on_child--progress.reported[0]',
      'active.waiting_on_child--call.recorded[0]',
      'active.waiting_on_child--tool.started[0]',
    ],
    async play({ service, deadlineMs }) {
      const { api, ends, events, results } = play(service, deadlineMs)
      const run = await api.createRun({ agent: BUSY_PARENT.name })
      expect(await ends(run)).toMatchObject({ output: { status: 'completed' } })
      const told = names(await events(run))
      for (const name of ['message_delta', 'message', 'step_finished', 'tool_finished'])
        expect(told, name).toContain(name)
      expect((await results(run)).map(({ tool }) => tool).toSorted()).toEqual(['beside', 'wait'])
    },
  },
  {
    name: 'a run whose code ends without its child cancels it first',
    needs: ['active--children.dismissed[0]'],
    async play({ service, deadlineMs }) {
      const { api, ends, events } = play(service, deadlineMs)
      const run = await api.createRun({ agent: HASTY.name })
      expect(await ends(run)).toMatchObject({ status: 'completed', output: 'without it' })
      expect(names(await events(run))).toContain('delegation_cancelled')
    },
  },
  {
    name: 'a run that is cancelled ends after its child',
    needs: ['active.cancel_requested--child.reported[0]'],
    async play({ service, deadlineMs }) {
      const { api, post, reaches, ends, events } = play(service, deadlineMs)
      const run = await post([{ delegate: child({ think: 60_000 }) }])
      await reaches(run, 'waiting_on_child')
      await api.cancel(run.run_id)
      expect(await ends(run)).toMatchObject({ status: 'cancelled' })
      expect(names(await events(run))).toContain('delegation_cancelled')
    },
  },
  {
    name: 'a run that waited for a child at a crash waits for the same one after it',
    needs: ['active.running--child.awaited[0]'],
    alone: {},
    async play({ service, deadlineMs, crash }) {
      const before = play(service, deadlineMs)
      const run = await before.post([{ delegate: child({ step: 'one' }, { think: 700 }) }])
      await childProgressed(before, run)
      const { ends, history, events } = play(await crash(), deadlineMs)
      expect(await ends(run)).toMatchObject({ status: 'completed', children: 1 })
      const again = ['resuming', 'running', 'waiting_on_child', 'running', 'completed']
      expect(await history(run)).toEqual(['queued', 'running', 'waiting_on_child', ...again])
      const told = names(await events(run)).filter((name) => name.startsWith('child_'))
      expect(told).toEqual(['child_started', 'child_finished'])
    },
  },
  {
    name: 'of a tree that takes its node with it only the run waits for a human that was at work',
    needs: ['active.waiting_on_child--attempt.lost[0]'],
    alone: { maxCrashes: 1 },
    async play({ service, deadlineMs, crash }) {
      const before = play(service, deadlineMs)
      const run = await before.post([{ delegate: child({ think: 60_000 }) }])
      const only = await childThatIs('running', before, run)
      const after = play(await crash(), deadlineMs)
      expect(await after.reaches(only, 'waiting_on_human')).toMatchObject({ detail: 'crash_loop' })
      expect(await after.reaches(run, 'waiting_on_child')).toMatchObject({ attempt: 2 })
      await after.api.cancel(run.run_id)
      await after.ends(run)
    },
  },
  {
    name: 'a run that is cancelled at a crash ends after its child all the same',
    needs: ['active.cancel_requested--attempt.lost[0]', 'active.cancel_requested--attempt.lost[1]'],
    alone: {},
    async play({ service, deadlineMs, crash }) {
      const before = play(service, deadlineMs)
      const run = await before.post([{ delegate: child({ tool: 'pay', hang: true }) }])
      const waiting = await childThatIs('waiting_on_tool', before, run)
      await before.api.cancel(run.run_id)
      await before.reaches(waiting, 'cancel_requested')
      const after = play(await crash(), deadlineMs)
      expect(await after.ends(run)).toMatchObject({ status: 'cancelled' })
      expect(names(await after.events(run))).toContain('delegation_cancelled')
      expect(await after.ends(waiting)).toMatchObject({ status: 'cancelled' })
    },
  },
]

const childrenOf = async ({ api }: Play, run: Run): Promise<Run[]> =>
  (await api.get(`/runs/${run.run_id}/children`)).body.children

/** One of its children, as soon as it has this status. */
const childThatIs = async (status: RunStatus, stage: Play, run: Run): Promise<Run> => {
  const found = async (): Promise<Run | undefined> =>
    (await childrenOf(stage, run)).find((one) => one.status === status)
  return (await eventually(found, { message: `a child that is ${status}` })) as Run
}

async function childProgressed(stage: Play, run: Run): Promise<void> {
  await eventually(async () => {
    const [only] = await childrenOf(stage, run)
    return only !== undefined && names(await stage.events(only)).includes('step_finished')
  })
}
