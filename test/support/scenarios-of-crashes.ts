import { expect } from 'vitest'
import { setTimeout as delay } from 'node:timers/promises'
import type { Run } from './api.ts'
import { eventually } from './eventually.ts'
import { play, type Play, type Scenario } from './scenario.ts'

const hang = { tool: 'pay', hang: true }
const mark = { step: 'begun' }

/** What happens to runs when their node crashes, drains, or never gets an answer. */
export const crashScenarios: readonly Scenario[] = [
  {
    name: 'a run that progressed goes on after a crash, under the next attempt and without repeating a step',
    needs: ['active--attempt.lost[1]'],
    alone: {},
    async play({ service, deadlineMs, crash }) {
      const run = await begun(play(service, deadlineMs), [mark, { think: 300 }, { return: 1 }])
      const { ends, history, results } = play(await crash(), deadlineMs)
      expect(await ends(run)).toMatchObject({ status: 'completed', attempt: 2, output: 1 })
      const statuses = ['queued', 'running', 'resuming', 'running', 'completed']
      expect(await history(run)).toEqual(statuses)
      expect(await results(run)).toMatchObject([{ tool: 'begun', attempt: 1 }])
    },
  },
  {
    name: 'a run that takes its node with it waits for a human, who can still cancel it',
    needs: ['active--attempt.lost[0]', 'waiting_on_human--cancel.requested[0]'],
    alone: { maxCrashes: 1 },
    async play({ service, deadlineMs, crash }) {
      const before = play(service, deadlineMs)
      const run = await before.post([{ think: 60_000 }])
      await before.reaches(run, 'running')
      const { api, reaches } = play(await crash(), deadlineMs)
      expect(await reaches(run, 'waiting_on_human')).toMatchObject({ detail: 'crash_loop' })
      expect((await api.cancel(run.run_id)).status).toBe(202)
      await reaches(run, 'cancelled')
    },
  },
  {
    name: 'an unsafe call of unknown outcome is asked about, and the answer stands for its result',
    needs: ['active.resuming--human.asked[0]', 'waiting_on_human--human.answered[0]'],
    alone: {},
    async play({ service, deadlineMs, crash }) {
      const before = play(service, deadlineMs)
      const run = await before.post([mark, hang])
      await before.reaches(run, 'waiting_on_tool')
      const { api, reaches, ends } = play(await crash(), deadlineMs)
      await reaches(run, 'waiting_on_human')
      await api.respond(run.run_id, { outcome: 'succeeded', result: 'paid' })
      expect(await ends(run)).toMatchObject({ output: { results: [null, 'paid'] } })
    },
  },
  {
    name: 'a run with several open questions goes on with the last answer',
    needs: ['waiting_on_human--human.answered[1]'],
    alone: {},
    async play({ service, deadlineMs, crash }) {
      const before = play(service, deadlineMs)
      const run = await before.post([mark, { parallel: [hang, hang] }])
      await eventually(async () => (await before.results(run)).length === 3, {
        timeoutMs: deadlineMs,
      })
      const { api, reaches, ends, events } = play(await crash(), deadlineMs)
      await reaches(run, 'waiting_on_human')
      const asked = (await events(run)).filter(({ event_type }) => event_type === 'human_asked')
      expect(asked).toHaveLength(2)
      for (const [nth, { payload }] of asked.entries()) {
        const { body } = await api.post(`/runs/${run.run_id}/respond`, {
          token_id: payload.token_id,
          answer: { outcome: 'succeeded', result: nth },
        })
        expect(body.command).toMatchObject({ status: 'applied' })
        if (nth === 0) expect(body.run.status).toBe('waiting_on_human')
      }
      expect(await ends(run)).toMatchObject({ output: { results: [null, [0, 1]] } })
    },
  },
  {
    name: 'a run whose cancel was under way at a crash is cancelled',
    needs: ['active.cancel_requested--attempt.lost[1]'],
    alone: {},
    async play({ service, deadlineMs, crash }) {
      const before = play(service, deadlineMs)
      const run = await before.post([mark, hang])
      await before.reaches(run, 'waiting_on_tool')
      await before.api.cancel(run.run_id)
      await before.reaches(run, 'cancel_requested')
      const { ends } = play(await crash(), deadlineMs)
      expect(await ends(run)).toMatchObject({ status: 'cancelled' })
    },
  },
  {
    name: 'without automatic recovery a lost run times out, and a resume takes it up',
    needs: ['active--attempt.lost[2]', 'terminal.timed_out--resume.requested[0]'],
    alone: { recovery: 'manual' },
    async play({ service, deadlineMs, crash }) {
      const run = await begun(play(service, deadlineMs), [mark, { think: 1_000 }, { return: 1 }])
      const { api, ends } = play(await crash(), deadlineMs)
      expect(await ends(run)).toMatchObject({
        status: 'timed_out',
        metadata: { resume_available: true },
      })
      expect((await api.resume(run.run_id)).status).toBe(202)
      expect(await ends(run)).toMatchObject({ status: 'completed', attempt: 2 })
    },
  },
  {
    name: 'a draining node hands its runs over without burning an attempt',
    needs: ['active--attempt.handed_over[0]'],
    alone: {},
    async play({ service, deadlineMs, join, drain }) {
      const run = await begun(play(service, deadlineMs), [mark, { think: 1_500 }, { return: 1 }])
      const { ends, history } = play(await join(), deadlineMs)
      drain()
      expect(await ends(run)).toMatchObject({ status: 'completed', attempt: 1 })
      expect(await history(run)).toContain('resuming')
    },
  },
  {
    name: 'a run that is cancelled while its node drains is cancelled, not handed over',
    needs: ['active.cancel_requested--attempt.handed_over[0]'],
    alone: {},
    async play({ service, deadlineMs, join, drain }) {
      const first = play(service, deadlineMs)
      // It hears of the drain and of the cancel when it has spun, in this order.
      const run = await begun(first, [mark, { spin: 1_500 }, { think: 200 }])
      const { ends } = play(await join(), deadlineMs)
      drain()
      await eventually(async () => (await first.api.get('/readyz')).body.node === 'draining', {
        timeoutMs: deadlineMs,
      })
      expect((await first.api.cancel(run.run_id)).status).toBe(202)
      expect(await ends(run)).toMatchObject({ status: 'cancelled' })
    },
  },
  {
    name: 'a call that never ends holds a cancelled run for the cancel time-out, however often it is cancelled',
    needs: [
      'active.cancel_requested--cancel.expired[0]',
      'active.cancel_requested--cancel.requested[0]',
    ],
    // The reconciler would end them as well, by the row: here the node's own clock is to do it.
    alone: { cancelTimeoutMs: 500, reconcileIntervalMs: 3_600_000 },
    async play({ service, deadlineMs }) {
      const { api, post, reaches } = play(service, deadlineMs)
      const runs = await Promise.all([post([hang]), post([hang])])
      for (const run of runs) await reaches(run, 'waiting_on_tool')
      await Promise.all(
        runs.map(async (run, nth) => {
          await api.cancel(run.run_id)
          const again = new AbortController()
          const pressing = nth === 0 ? press(api, run, again.signal) : undefined
          // It ends with the service, where the run does not.
          pressing?.catch(() => {})
          await reaches(run, 'cancelled').finally(() => again.abort())
          await pressing
        }),
      )
    },
  },
]

/** A run that has recorded its first step. */
async function begun({ post, tells }: Play, steps: Record<string, unknown>[]): Promise<Run> {
  const run = await post(steps)
  await tells(run, 'step_finished')
  return run
}

async function press(api: Play['api'], run: Run, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await api.cancel(run.run_id)
    await delay(100)
  }
}
