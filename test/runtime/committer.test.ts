import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { Counts } from '../../src/runtime/commit/counts.ts'
import { Committer } from '../../src/runtime/commit/committer.ts'
import type { RecordSource } from '../../src/runtime/commit/batch.ts'
import { type Database, openDatabase } from '../../src/store/database.ts'
import type { FlushAnswer, RunRecord } from '../../src/store/flush.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { groupOf, runDraft } from '../support/run-drafts.ts'
import { callOf, messageOf } from '../support/run-messages.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'
import { startTcpProxy, type TcpProxy, upstreamOf } from '../support/tcp-proxy.ts'

const url = await freshDatabase()
let stage: StoreStage
let epoch: number
beforeAll(async () => {
  stage = await storeStage({ url, notifies: true })
  epoch = await stage.node()
})
afterAll(() => stage.close())

let proxy: TcpProxy
let database: Database
let committer: Committer
let counts: Counts
let answers: FlushAnswer[]
let outages: number
let returns: number
beforeEach(async () => {
  proxy = await startTcpProxy(upstreamOf(url))
  database = openDatabase({ url: proxy.url(url), notifies: false })
  answers = []
  counts = new Counts()
  outages = 0
  returns = 0
  committer = new Committer({
    line: database.commits,
    monotonicMs: systemClock.monotonicMs,
    endpoints: [],
    counts,
    claimWanted: () => null,
    onAnswer: (answer) => answers.push(answer),
    onReconnected: () => (returns += 1),
    onOutage: () => (outages += 1),
    onProblem: () => {},
  })
})
afterEach(async () => {
  await committer.stop()
  await database.close()
  await proxy.close()
})

interface Source extends RecordSource {
  /** `committed`, or the reason of a refusal; undefined while neither is known. */
  outcome: string | undefined
  message: string
}

function sourceOf(record: RunRecord): Source {
  const source: Source = {
    outcome: undefined,
    message: '',
    take: () => record,
    committed: () => {
      source.outcome = 'committed'
    },
    refused: (reason, message) => {
      source.outcome = reason
      source.message = message
    },
  }
  return source
}

const settled = async (...sources: Source[]): Promise<(string | undefined)[]> => {
  await eventually(() => sources.every(({ outcome }) => outcome !== undefined), {
    timeoutMs: 20_000,
  })
  return sources.map(({ outcome }) => outcome)
}

/** Runs that a node is at work on. */
async function hosted(count: number): Promise<string[]> {
  const drafts = Array.from({ length: count }, () => runDraft({ priority: 9 }))
  await stage.create(...drafts)
  const claimed = await stage.claim(epoch, count)
  expect(claimed).toHaveLength(count)
  return drafts.map(({ run_id }) => run_id)
}

const started = (runId: string, changes = {}): Promise<RunRecord> =>
  stage.record(runId, { type: 'tool.started', call: callOf(1, changes), timeout_ms: null })
const eventsOf = async (runId: string): Promise<string[]> =>
  (
    await stage.reads<{ event_type: string }[]>`
      select event_type from runlane.agent_events where run_id = ${runId} order by sequence`
  ).map(({ event_type }) => event_type)

describe('a commit whose reply is lost', () => {
  test('is applied once, and those who decided it are told so', async () => {
    const runIds = await hosted(3)
    const sources = (await Promise.all(runIds.map((runId) => started(runId)))).map(sourceOf)
    const drop = proxy.dropNextCommitReply()
    for (const source of sources) committer.enlist(source)
    expect(await settled(...sources)).toEqual(Array(3).fill('committed'))
    expect(await drop.dropped).toHaveLength(1)
    for (const runId of runIds) {
      expect((await eventsOf(runId)).filter((type) => type === 'tool_started')).toHaveLength(1)
      expect((await stage.row(runId)).status).toBe('waiting_on_tool')
    }
    expect(returns).toBe(1)
  })

  test('is told from a record that was fenced meanwhile', async () => {
    const [mine = '', lost = ''] = await hosted(2)
    const [good, late] = [sourceOf(await started(mine)), sourceOf(await started(lost))]
    await stage.reads`update runlane.agent_runs set version = version + 1 where run_id = ${lost}`
    const drop = proxy.dropNextCommitReply()
    committer.enlist(good)
    committer.enlist(late)
    expect(await settled(good, late)).toEqual(['committed', 'fenced'])
    expect(await drop.dropped).toHaveLength(1)
    expect(await eventsOf(lost)).not.toContain('tool_started')
  })

  test('creates its runs once, and the caller gets them', async () => {
    const draft = runDraft()
    const drop = proxy.dropNextCommitReply()
    const answer = await committer.create(groupOf(draft))
    expect(await drop.dropped).toHaveLength(1)
    expect(answer).toMatchObject({ runs: [{ run_id: draft.run_id, existing: false }] })
    expect(await eventsOf(draft.run_id)).toHaveLength(3)
  })

  test('takes a careful create for its own when it is repeated', async () => {
    const draft = runDraft({ lane_policy: 'reject', idempotency_key: 'once' })
    const drop = proxy.dropNextCommitReply()
    const answer = await committer.create(groupOf(draft))
    expect(await drop.dropped).toHaveLength(1)
    expect(answer).toMatchObject({ runs: [{ run_id: draft.run_id, existing: false }] })
    expect(await eventsOf(draft.run_id)).toHaveLength(3)
  })
})

describe('while the database is away', () => {
  test(
    'callers are told, records wait, and both go on when it is back',
    { timeout: 60_000 },
    async () => {
      const [runId = ''] = await hosted(1)
      const source = sourceOf(await started(runId))
      proxy.refuse(true)
      proxy.cutAll()
      committer.enlist(source)
      const refusal = { code: 'database_unavailable' }
      await expect(committer.create(groupOf(runDraft()))).rejects.toMatchObject(refusal)
      await eventually(() => outages > 0)
      expect(committer.available).toBe(false)
      await expect(committer.create(groupOf(runDraft()))).rejects.toMatchObject(refusal)
      expect(source.outcome).toBeUndefined()

      proxy.refuse(false)
      expect(await settled(source)).toEqual(['committed'])
      await eventually(() => committer.available && returns > 0)
      const draft = runDraft()
      expect(await committer.create(groupOf(draft))).toMatchObject({
        runs: [{ run_id: draft.run_id }],
      })
      expect((await eventsOf(runId)).filter((type) => type === 'tool_started')).toHaveLength(1)
    },
  )
})

describe('a flush', () => {
  test('that Postgres refuses for a value is written but for the record to blame', async () => {
    const runIds = await hosted(53)
    const poison = [
      { result: { text: 'a\0b' }, outcome: 'succeeded' },
      { result: ['\ud83d'], outcome: 'succeeded' },
      { position: 2 ** 40 },
    ]
    const at = [7, 26, 52]
    const sources = await Promise.all(
      runIds.map(async (runId, nth) => sourceOf(await started(runId, poison[at.indexOf(nth)]))),
    )
    for (const source of sources) committer.enlist(source)

    const outcomes = await settled(...sources)
    expect(outcomes).toEqual(runIds.map((_, nth) => (at.includes(nth) ? 'data' : 'committed')))
    for (const nth of at) expect(sources[nth]?.message).not.toBe('')
    for (const [nth, runId] of runIds.entries()) {
      const told = (await eventsOf(runId)).includes('tool_started')
      expect(told, `record ${nth}`).toBe(!at.includes(nth))
    }
    // Halving finds three among 53 in a few dozen flushes; one by one would take more.
    expect(committer.flushes).toBeLessThan(40)
  })

  test('refuses the create to blame, and makes the others', async () => {
    const good = runDraft()
    const bad = runDraft({ input: { text: 'a\0b' } })
    const made = committer.create(groupOf(good))
    const refused = committer.create(groupOf(bad))
    await expect(refused).rejects.toMatchObject({ code: 'record_refused' })
    expect(await made).toMatchObject({ runs: [{ run_id: good.run_id }] })
    expect(await eventsOf(bad.run_id)).toEqual([])
  })

  test('refuses a fenced record alone, and writes nothing of it', async () => {
    const [fenced = '', good = ''] = await hosted(2)
    const [late, fine] = [sourceOf(await started(fenced)), sourceOf(await started(good))]
    const next = await stage.node()
    await stage.reads`update runlane.agent_runs set owner_epoch = ${next} where run_id = ${fenced}`
    const counted = vi.spyOn(counts, 'flushed')
    committer.enlist(late)
    committer.enlist(fine)
    expect(await settled(late, fine)).toEqual(['fenced', 'committed'])
    expect(await eventsOf(fenced)).not.toContain('tool_started')
    const written = counted.mock.calls.flatMap(([flushed]) => flushed.written)
    expect(written.map(({ change }) => change.run_id)).toEqual([good])
    expect(counts.recordsRefused).toBe(1)
  })

  test('is shared by all that is decided in one turn', async () => {
    const sources = (await Promise.all((await hosted(20)).map((runId) => started(runId)))).map(
      sourceOf,
    )
    for (const source of sources) committer.enlist(source)
    await settled(...sources)
    expect(committer.flushes).toBe(1)
  })

  test('holds about 8 MB; what is more goes into the next ones', async () => {
    const runIds = await hosted(12)
    const sources = await Promise.all(
      runIds.map(async (runId) => {
        const result = 'x'.repeat(1_500_000)
        const call = callOf(1, { kind: 'step', outcome: 'succeeded', settled: 1, result })
        return sourceOf(
          await stage.record(runId, {
            type: 'call.recorded',
            call: { ...call, size: result.length },
          }),
        )
      }),
    )
    for (const source of sources) committer.enlist(source)
    expect(await settled(...sources)).toEqual(Array(12).fill('committed'))
    expect(committer.flushes).toBe(2)
  })

  test('carries a record of each run once, and the next one follows it', async () => {
    const [runId = ''] = await hosted(1)
    const first = sourceOf(await started(runId))
    committer.enlist(first)
    committer.enlist(first)
    await settled(first)
    const second = sourceOf(
      await stage.record(runId, messageOf({ type: 'tool.finished', call: callOf(1) }, 1)),
    )
    committer.enlist(second)
    expect(await settled(second)).toEqual(['committed'])
    expect((await stage.row(runId)).status).toBe('running')
    expect(answers).toHaveLength(2)
  })
})
