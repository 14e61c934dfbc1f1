import { expect } from 'vitest'
import { childScenarios } from './scenarios-of-children.ts'
import { crashScenarios } from './scenarios-of-crashes.ts'
import { watchdogScenarios } from './scenarios-of-watchdog.ts'
import { BESIDE, STUBBORN } from './scenario-agents.ts'
import { names, play, type Scenario } from './scenario.ts'

const CANCELLABLE = 'cancel.requested'

/** Each scenario alone is short; together they take every transition of the run chart that can be reached over HTTP. */
export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'a run goes through its lane, does its steps and completes',
    needs: [
      'queued--[0]',
      'waiting_on_lane--lane.granted[0]',
      'queued--run.claimed[0]',
      'active--run.completed[0]',
      'active.running--call.recorded[0]',
    ],
    async play({ service, deadlineMs }) {
      const { post, ends, history, results, events } = play(service, deadlineMs)
      const run = await post([{ step: 'count', result: 7 }, { think: 5 }, { return: 'done' }])
      expect(await ends(run)).toMatchObject({ status: 'completed', output: 'done', attempt: 1 })
      expect(await history(run)).toEqual(['queued', 'running', 'completed'])
      expect(await results(run)).toMatchObject([{ tool: 'count', result: 7 }])
      expect(names(await events(run))).toContain('step_finished')
    },
  },
  {
    name: 'a failed run says why, and a resume runs it again from its records',
    needs: [
      'active--run.failed[0]',
      'terminal.failed--resume.requested[0]',
      'queued--run.claimed[1]',
      'active.resuming--session.ready[0]',
    ],
    async play({ service, deadlineMs }) {
      const { api, post, ends, history } = play(service, deadlineMs)
      const run = await post([{ step: 'once' }, { fail: 'boom' }])
      expect(await ends(run)).toMatchObject({ status: 'failed', error_message: 'boom' })
      expect((await api.resume(run.run_id)).status).toBe(202)
      expect(await ends(run)).toMatchObject({ status: 'failed', error_message: 'boom', attempt: 2 })
      const second = ['queued', 'resuming', 'running', 'failed']
      expect(await history(run)).toEqual(['queued', 'running', 'failed', ...second])
    },
  },
  {
    name: 'a tool call is a status of its own, from its start to its end',
    needs: ['active.running--tool.started[0]', 'active.waiting_on_tool--tool.finished[0]'],
    async play({ service, deadlineMs }) {
      const { post, ends, history, results } = play(service, deadlineMs)
      const run = await post([{ tool: 'search', ms: 10, result: [1] }, { think: 5 }])
      expect(await ends(run)).toMatchObject({ status: 'completed' })
      const calling = ['running', 'waiting_on_tool', 'running']
      expect(await history(run)).toEqual(['queued', ...calling, 'completed'])
      expect(await results(run)).toMatchObject([{ outcome: 'succeeded', result: [1] }])
    },
  },
  {
    name: 'each call of a batch is told, and the batch ends with its last one',
    needs: ['active.waiting_on_tool--tool.started[0]', 'active.waiting_on_tool--tool.finished[2]'],
    async play({ service, deadlineMs }) {
      const { post, ends, history, events } = play(service, deadlineMs)
      const calls = [5, 60, 120].map((ms) => ({ tool: `of_${ms}`, ms, result: ms }))
      const run = await post([{ parallel: calls }])
      expect(await ends(run)).toMatchObject({ output: { results: [[5, 60, 120]] } })
      const told = names(await events(run))
      expect(told.filter((type) => type === 'tool_started')).toHaveLength(3)
      expect(told.filter((type) => type === 'tool_finished')).toHaveLength(3)
      const calling = ['running', 'waiting_on_tool', 'running']
      expect(await history(run)).toEqual(['queued', ...calling, 'completed'])
    },
  },
  {
    name: 'what a run says is streamed piece by piece, then told whole',
    needs: ['active.running--progress.reported[0]'],
    async play({ service, deadlineMs }) {
      const { post, ends, events } = play(service, deadlineMs)
      const run = await post([{ say: 'one two three', chunks: 3, ms: 30 }])
      await ends(run)
      const said = (await events(run)).filter(({ event_type }) => event_type.startsWith('message'))
      expect(names(said)).toEqual([...Array(3).fill('message_delta'), 'message'])
      expect(said.slice(0, 3).map(({ payload }) => payload.text)).toEqual(['one t', 'wo th', 'ree'])
    },
  },
  {
    name: 'a coalesced request replaces the input of the run that waits in its lane',
    needs: ['waiting_on_lane--input.replaced[0]'],
    async play({ service, deadlineMs }) {
      const { api, post, ends, tells } = play(service, deadlineMs)
      const lane = { lane_key: `coalesced-${crypto.randomUUID()}` }
      const head = await post([{ think: 60_000 }], lane)
      const waiting = await post([{ return: 'old' }], lane)
      const answer = await api.post('/runs', {
        agent: 'scripted',
        input: { steps: [{ return: 'new' }] },
        lane_policy: 'coalesce',
        ...lane,
      })
      expect(answer).toMatchObject({ status: 200, body: { run_id: waiting.run_id } })
      await tells(waiting, 'run_input_replaced')
      await api.cancel(head.run_id)
      expect(await ends(waiting)).toMatchObject({ output: 'new' })
    },
  },
  {
    name: 'a run is cancelled at once before its time has come and in the line of its lane',
    needs: ['queued--cancel.requested[0]', 'waiting_on_lane--cancel.requested[0]'],
    async play({ service, deadlineMs }) {
      const { api, post, reaches, can } = play(service, deadlineMs)
      const lane = { lane_key: `busy-${crypto.randomUUID()}` }
      const later = await post([], { run_at: new Date(Date.now() + 3_600_000).toISOString() })
      const head = await post([{ think: 60_000 }], lane)
      const waiting = await post([], lane)
      expect(waiting.status).toBe('waiting_on_lane')
      expect(await can(waiting)).toEqual([
        CANCELLABLE,
        'input.replaced',
        'lane.granted',
        'queue.expired',
      ])
      for (const run of [later, waiting]) {
        expect((await api.cancel(run.run_id)).status).toBe(202)
        expect((await reaches(run, 'cancelled')).attempt).toBe(0)
        expect(await can(run)).toEqual([])
      }
      await api.cancel(head.run_id)
    },
  },
  {
    name: 'a thinking run stops at a cancel',
    needs: ['active--cancel.requested[0]', 'active.cancel_requested--session.exited[0]'],
    async play({ service, deadlineMs }) {
      const { api, post, reaches, history, events } = play(service, deadlineMs)
      const run = await post([{ think: 60_000 }])
      await reaches(run, 'running')
      expect((await api.cancel(run.run_id)).status).toBe(202)
      await reaches(run, 'cancelled')
      // By itself, not by the reconciler that finds it gone.
      expect(names(await events(run))).not.toContain('watchdog_verdict')
      expect(await history(run)).toEqual(['queued', 'running', 'cancel_requested', 'cancelled'])
    },
  },
  {
    name: 'a run with a time joins its lane when it has come',
    needs: ['queued--run.due[0]'],
    async play({ service, deadlineMs }) {
      const { post, ends, history } = play(service, deadlineMs)
      const run_at = new Date(Date.now() + 400).toISOString()
      const run = await post([{ return: 1 }], { run_at })
      expect(run).toMatchObject({ status: 'queued', started_at: null })
      const ended = await ends(run)
      expect(ended).toMatchObject({ status: 'completed' })
      expect(Date.parse(ended['started_at'])).toBeGreaterThanOrEqual(Date.parse(run_at))
      expect((await history(run)).at(-1)).toBe('completed')
    },
  },
  {
    name: 'an unsafe call that is in flight at a cancel ends, and is recorded',
    needs: ['active.cancel_requested--tool.finished[0]'],
    async play({ service, deadlineMs }) {
      const { api, post, reaches, results } = play(service, deadlineMs)
      const run = await post([{ tool: 'pay', ms: 700, result: 'paid' }])
      await reaches(run, 'waiting_on_tool')
      await api.cancel(run.run_id)
      await reaches(run, 'cancelled')
      expect(await results(run)).toMatchObject([{ outcome: 'succeeded', result: 'paid' }])
    },
  },
  {
    name: 'a step that does not listen to a cancel is recorded as well',
    needs: ['active.cancel_requested--call.recorded[0]'],
    async play({ service, deadlineMs }) {
      const { api, reaches, tells, results } = play(service, deadlineMs)
      const run = await api.createRun({ agent: STUBBORN.name })
      await tells(run, 'message')
      await api.cancel(run.run_id)
      await reaches(run, 'cancelled')
      expect(await results(run)).toMatchObject([{ tool: 'deaf', result: 'heard nothing' }])
    },
  },
  {
    name: 'steps and words beside a tool call are recorded while it is in flight',
    needs: [
      'active.waiting_on_tool--call.recorded[0]',
      'active.waiting_on_tool--progress.reported[0]',
    ],
    async play({ service, deadlineMs }) {
      const { api, ends, events } = play(service, deadlineMs)
      const run = await api.createRun({ agent: BESIDE.name })
      expect(await ends(run)).toMatchObject({ status: 'completed', output: 'both' })
      const told = names(await events(run))
      const during = told.slice(told.indexOf('tool_started'), told.indexOf('tool_finished'))
      const expected = ['step_finished', 'message_delta', 'message_delta', 'message']
      expect(during.filter((type) => expected.includes(type))).toEqual(expected)
    },
  },
  {
    name: 'a run that ends by itself after a cancel is cancelled, not completed and not failed',
    needs: ['active.cancel_requested--run.completed[0]', 'active.cancel_requested--run.failed[0]'],
    async play({ service, deadlineMs }) {
      const { api, post, tells, ends } = play(service, deadlineMs)
      for (const last of [{ return: 1 }, { fail: 'too late' }]) {
        // Code that blocks its thread hears of the cancel only after it has ended.
        const run = await post([{ step: 'begun' }, { spin: 700 }, last])
        await tells(run, 'step_finished')
        expect((await api.cancel(run.run_id)).status).toBe(202)
        expect(await ends(run)).toMatchObject({ status: 'cancelled', output: null })
      }
    },
  },
  {
    name: 'the published chart has what no run can reach before there are questions',
    needs: ['active.running--human.asked[0]'],
    async play({ service, deadlineMs }) {
      const { body } = await play(service, deadlineMs).api.get('/machines/run')
      const found = (body.transitions as { source: string; event: string; target: string }[])
        .filter(({ event }) => event === 'human.asked')
        .map(({ source, event, target }) => `${source} ${event} ${target}`)
      expect(found.toSorted()).toEqual([
        'active.resuming human.asked waiting_on_human',
        'active.running human.asked waiting_on_human',
      ])
    },
  },
  ...childScenarios,
  ...crashScenarios,
  ...watchdogScenarios,
]
