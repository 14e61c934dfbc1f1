import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startEmbedded } from '../../src/store/embedded.ts'
import type { Flush } from '../../src/store/flush.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { seeded } from '../support/random.ts'
import { groupOf, runDraft } from '../support/run-drafts.ts'
import { callOf, messageOf } from '../support/run-messages.ts'
import { recordOn, type StoreStage, storeStage } from '../support/store-stage.ts'

const url = await freshDatabase()
const folder = await mkdtemp(join(tmpdir(), 'runlane-races-'))
afterAll(() => rm(folder, { recursive: true, force: true }))

const cancel = messageOf({ type: 'cancel.requested' }, 1)
const fail = messageOf({ type: 'run.failed' }, 1)
const lane = (): { lane_key: string } => ({ lane_key: `lane-${crypto.randomUUID()}` })

describe.each(['Postgres', 'PGlite'] as const)('on %s', (kind) => {
  let stage: StoreStage
  let stop: (() => Promise<void>) | undefined
  beforeAll(async () => {
    const embedded = kind === 'PGlite' ? await startEmbedded(folder) : null
    stage = await storeStage(embedded?.target ?? { url, notifies: true })
    stop = embedded?.close
  })
  afterAll(async () => {
    await stage.close()
    await stop?.()
  })

  describe('two claims at a time', () => {
    test('share the runs, none twice and none forgotten', async () => {
      const [one, other] = [await stage.node(), await stage.node()]
      const drafts = Array.from({ length: 10 }, () => runDraft())
      await stage.create(...drafts)

      const [first, second] = await stage.inStep(
        { claim: { epoch: one, limit: 6 } },
        { claim: { epoch: other, limit: 10 } },
      )

      expect([first.claimed.length, second.claimed.length]).toEqual([6, 4])
      const claimed = [...first.claimed, ...second.claimed].map(({ run_id }) => run_id)
      expect(claimed.toSorted()).toEqual(drafts.map(({ run_id }) => run_id).toSorted())
      for (const row of await stage.rows(drafts)) {
        const mine = first.claimed.some(({ run_id }) => run_id === row.run_id)
        expect(row).toMatchObject({ owner_epoch: mine ? one : other, status: 'running' })
      }
    })

    test('never exceed the concurrency of a queue together', async () => {
      const [one, other] = [await stage.node(), await stage.node()]
      const queue = `queue-${crypto.randomUUID()}`
      await stage.reads`insert into runlane.queues (name, concurrency) values (${queue}, 3)`
      const drafts = Array.from({ length: 8 }, () => runDraft({ queue }))
      await stage.create(...drafts)

      const [first, second] = await stage.inStep(
        { claim: { epoch: one, limit: 2 } },
        { claim: { epoch: other, limit: 8 } },
      )
      expect([first.claimed.length, second.claimed.length]).toEqual([2, 1])
      expect(await stage.claim(one)).toEqual([])

      // A place is free again in the very commit in which a run ends.
      const [ended] = first.claimed
      const record = await stage.record(ended?.run_id ?? '', fail)
      const answer = await stage.commit({ records: [record], claim: { epoch: one, limit: 8 } })
      expect(answer.claimed).toHaveLength(1)
    })

    test('give nothing to a node that drains, or whose lease is over, or from a paused queue', async () => {
      const [late, draining, serving] = [
        await stage.node(0),
        await stage.node(),
        await stage.node(),
      ]
      await stage.reads`update runlane.nodes set status = 'draining' where epoch = ${draining}`
      const queue = `queue-${crypto.randomUUID()}`
      await stage.reads`insert into runlane.queues (name, paused) values (${queue}, true)`
      const [open, paused] = [runDraft(), runDraft({ queue })]
      await stage.create(open, paused)

      expect(await stage.claim(late)).toEqual([])
      expect(await stage.claim(draining)).toEqual([])
      const claimed = await stage.claim(serving)
      expect(claimed.map(({ run_id }) => run_id)).toEqual([open.run_id])
    })
  })

  describe('a lane', () => {
    const holders = async (lane_key: string): Promise<string[]> =>
      (
        await stage.reads<{ run_id: string }[]>`
          select run_id from runlane.agent_runs where lane_key = ${lane_key} and holds_lane`
      ).map(({ run_id }) => run_id)

    test('goes to the one that waits when it is freed while another arrives', async () => {
      const key = lane()
      const [head, next, late] = [runDraft(key), runDraft(key), runDraft(key)]
      await stage.create(head, next)
      const freeing = { records: [await stage.record(head.run_id, cancel)] }
      await stage.inStep(freeing, { groups: [groupOf(late)] })
      expect(await holders(key.lane_key)).toEqual([next.run_id])
      expect((await stage.row(late.run_id)).status).toBe('waiting_on_lane')
    })

    test('goes to a run that arrives while its last run leaves it', async () => {
      const key = lane()
      const [head, late] = [runDraft(key), runDraft(key)]
      await stage.create(head)
      const freeing = { records: [await stage.record(head.run_id, cancel)] }
      await stage.inStep(freeing, { groups: [groupOf(late)] })
      expect(await holders(key.lane_key)).toEqual([late.run_id])
    })

    test('goes to a run that joined it in a commit that its leaver could not see yet', async () => {
      const key = lane()
      const [head, late] = [runDraft(key), runDraft(key)]
      await stage.create(head)
      const freeing = { records: [await stage.record(head.run_id, cancel)] }
      await stage.inStep({ groups: [groupOf(late)] }, freeing)
      expect(await holders(key.lane_key)).toEqual([late.run_id])
      expect(await stage.row(late.run_id)).toMatchObject({ status: 'queued', holds_lane: true })
    })

    test('has one holder when two runs find it empty at once', async () => {
      const key = lane()
      const [one, other] = [runDraft(key), runDraft(key)]
      await stage.inStep({ groups: [groupOf(one)] }, { groups: [groupOf(other)] })
      expect(await holders(key.lane_key)).toEqual([one.run_id])
    })

    test('has one holder when a resumed run and a new one join it at once', async () => {
      const key = lane()
      const node = await stage.node()
      const [old, late] = [runDraft(key), runDraft(key)]
      await stage.create(old)
      await stage.claim(node)
      await stage.commit({ records: [await stage.record(old.run_id, fail)] })
      const resume = messageOf({ type: 'resume.requested' }, 1)
      const joining = { records: [await stage.record(old.run_id, resume)] }
      await stage.inStep({ groups: [groupOf(late)] }, joining)
      expect(await holders(key.lane_key)).toEqual([late.run_id])
      await stage.commit({ records: [await stage.record(late.run_id, cancel)] })
      expect(await holders(key.lane_key)).toEqual([old.run_id])
    })

    test(
      'never loses a promotion in a long race of four writers',
      { timeout: 60_000 },
      async () => {
        const random = seeded(20_261_120)
        const lanes = Array.from({ length: 3 }, () => lane().lane_key)
        const isOpen = stage.reads`lane_key = any (${lanes}) and ended_at is null`
        const write = async (): Promise<Partial<Flush>> => {
          if (random.chance(0.5))
            return { groups: [groupOf(runDraft({ lane_key: random.pick(lanes) }))] }
          const found = await stage.reads<{ run_id: string }[]>`
          select run_id from runlane.agent_runs where ${isOpen}`
          if (found.length === 0) return {}
          const row = await stage.row(random.pick(found).run_id)
          return row.ended_at === null ? { records: [recordOn(row, cancel)] } : {}
        }
        const writer = async (): Promise<void> => {
          for (let turn = 0; turn < 40; turn += 1) await stage.commit(await write())
        }
        await Promise.all([writer(), writer(), writer(), writer()])

        const counts = await stage.reads<{ lane_key: string; holding: number; open: number }[]>`
        select lane_key, count(*) filter (where holds_lane)::int as holding, count(*)::int as open
        from runlane.agent_runs where ${isOpen} group by lane_key`
        for (const { holding, open } of counts)
          expect({ holding, open }).toEqual({ holding: 1, open })
      },
    )
  })

  describe('a record', () => {
    test('of an owner that was fenced writes nothing at all, beside others that are written', async () => {
      const [old, next, stays] = [await stage.node(), await stage.node(), await stage.node()]
      const [lost, kept] = [runDraft({ priority: 2 }), runDraft({ priority: 1 })]
      await stage.create(lost, kept)
      await stage.claim(old, 1)
      await stage.claim(stays, 1)
      await stage.reads`insert into runlane.run_inbox (run_id, kind, dedupe_key, payload, created_at)
        values (${lost.run_id}, 'cancel', 'letter', '{}', runlane.now())`
      await stage.reads`insert into runlane.run_commands
        (command_id, run_id, kind, payload, requested_by, created_at)
        values (${`cmd-${lost.run_id}`}, ${lost.run_id}, 'cancel', '{}', 'test', runlane.now())`
      const [late, good] = [
        await stage.record(
          lost.run_id,
          messageOf({ type: 'tool.started' }, 1),
          messageOf({ type: 'tool.finished', call: callOf(1) }, 1),
          {
            type: 'call.recorded',
            call: callOf(2, { kind: 'journal', outcome: 'succeeded', result: { goal: 'x' } }),
          },
          messageOf({ type: 'human.asked', questions: 1 }, 3),
        ),
        await stage.record(kept.run_id, messageOf({ type: 'tool.started' }, 1)),
      ]
      late.outcomes.push({
        run_id: lost.run_id,
        command_id: `cmd-${lost.run_id}`,
        status: 'applied',
        outcome: 'x',
      })
      late.consumed.push({ run_id: lost.run_id, dedupe_key: 'letter' })
      late.payload = { run_id: lost.run_id, output: 'stolen', input: 'replaced' }
      await stage.reads`update runlane.nodes set status = 'dead' where epoch = ${old}`
      const before = await contents(stage, lost.run_id)

      const [adoption, answer] = await stage.inStep(
        { adopt: { epoch: next, all_others: false, limit: 1_000 } },
        { records: [late, good] },
      )

      expect(adoption.adopted.map(({ run_id }) => run_id)).toContain(lost.run_id)
      expect(answer.accepted).toEqual([kept.run_id])
      const after = await contents(stage, lost.run_id)
      expect({ ...after, events: [] }).toEqual({ ...before, events: [] })
      // The only new event is that of the adoption itself.
      expect(after.events.slice(before.events.length)).toEqual(['lease_lost'])
      expect(await stage.row(lost.run_id)).toMatchObject({ owner_epoch: next, status: 'running' })
      expect(await contents(stage, kept.run_id)).toMatchObject({ results: [{ tool: 'search' }] })
    })

    test('of a run without owner is written by one of two nodes that decide on it at once', async () => {
      const head = runDraft()
      const waiting = runDraft({ lane_key: head.lane_key })
      await stage.create(head, waiting)
      const decisions = [
        await stage.record(waiting.run_id, cancel),
        await stage.record(waiting.run_id, messageOf({ type: 'input.replaced' }, 1)),
      ] as const
      const [first, second] = await stage.inStep(
        { records: [decisions[0]] },
        { records: [decisions[1]] },
      )
      expect([first.accepted, second.accepted]).toEqual([null, []])
      expect((await stage.row(waiting.run_id)).status).toBe('cancelled')
    })

    test('that is sent twice is applied once', async () => {
      const head = runDraft()
      await stage.create(head)
      const record = await stage.record(head.run_id, cancel)
      const [first, second] = await stage.inStep({ records: [record] }, { records: [record] })
      expect([first.accepted, second.accepted]).toEqual([null, []])
      const { events } = await contents(stage, head.run_id)
      expect(events.filter((type) => type === 'cancel_requested')).toHaveLength(1)
    })
  })
})

/** All that a record of a run could have changed. */
async function contents({ reads }: StoreStage, runId: string) {
  const [events, results, waitpoints, inbox, commands, journals, payloads] = await Promise.all([
    reads`select event_type from runlane.agent_events where run_id = ${runId} order by sequence`,
    reads`select * from runlane.agent_tool_results where run_id = ${runId}`,
    reads`select * from runlane.waitpoints where run_id = ${runId}`,
    reads`select * from runlane.run_inbox where run_id = ${runId}`,
    reads`select * from runlane.run_commands where run_id = ${runId}`,
    reads`select * from runlane.agent_run_journals where run_id = ${runId}`,
    reads`select * from runlane.agent_run_payloads where run_id = ${runId}`,
  ])
  const types = events.map((event) => String(event['event_type']))
  return { events: types, results, waitpoints, inbox, commands, journals, payloads }
}
