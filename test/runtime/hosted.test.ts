import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RunEvent } from '../../machines/run-setup.ts'
import type { Session } from '../../src/executors/local/session.ts'
import type { RunActor } from '../../src/runtime/run/durable.ts'
import { Hosted } from '../../src/runtime/run/hosted.ts'
import { Ledger } from '../../src/runtime/run/ledger.ts'
import { Reports } from '../../src/runtime/run/reports.ts'
import { Signals } from '../../src/runtime/run/signals.ts'
import { Mailroom, type MailroomOptions } from '../../src/runtime/commands/mailroom.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { runDraft } from '../support/run-drafts.ts'
import { messageOf } from '../support/run-messages.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'

const url = await freshDatabase()
let store: StoreStage
beforeAll(async () => {
  store = await storeStage({ url, notifies: true })
})
afterAll(() => store.close())

const WATCHDOG = {
  limits: { reasoning: 30_000, tool: 150_000, turn: 600_000, executor: 15_000 },
  autoTerminate: { mode: 'off' },
} as const

/** A run of this node as it is after its claim: nothing of it has begun. */
const claimed = async (): Promise<Hosted> => {
  const epoch = await store.node()
  await store.create(runDraft())
  const [row] = await store.claim(epoch, 1)
  if (!row) throw new Error('nothing was claimed')
  const actor = { send: () => {} } as unknown as RunActor
  const reports = new Reports(async () => undefined)
  const signals = new Signals(row.run_id, async () => [])
  return new Hosted(actor, Ledger.restore(row), {
    reports,
    signals,
    watchdog: WATCHDOG,
    monotonicMs: () => 0,
  })
}
const performed = (probe: () => 'alive' | 'absent'): Session => ({
  silentMs: 0,
  probe,
  result: async () => null,
  timeouts: {},
  onOrphan: 'keep',
  cancel: () => {},
  drain: () => {},
  kill: () => {},
})
const FORCED = [{ type: 'run.recycled', forced: true, by: 'ana' }] as const

test('an active run that nothing performs is found, unless its session is about to begin', async () => {
  const hosted = await claimed()
  expect(hosted.isUnreported).toBe(true)
  hosted.starting = 1
  expect(hosted.isUnreported).toBe(false)
  hosted.starting = 0
  hosted.session = performed(() => 'alive')
  expect(hosted.isUnreported).toBe(false)
  hosted.session = performed(() => 'absent')
  expect(hosted.isUnreported).toBe(true)
  hosted.endSession()
  expect(hosted.isUnreported).toBe(true)
  // Decided and not committed: what follows from it may be a session.
  hosted.ledger.decide({ type: 'progress.reported', phase: 'on its way' })
  expect(hosted.isUnreported).toBe(false)
  hosted.ledger.take()
  expect(hosted.isUnreported).toBe(false)
  hosted.ledger.settle()
  expect(hosted.isUnreported).toBe(true)
  hosted.ledger.decide({ type: 'cancel.requested', by: 'ana', reason: null })
  hosted.ledger.take()
  hosted.ledger.settle()
  expect(hosted.isUnreported).toBe(false)
})

test('a run is seized once, in one step, or nothing of it is touched', async () => {
  const hosted = await claimed()
  const session = performed(() => 'alive')
  hosted.session = session
  const refused = [{ type: 'run.recycled', forced: false, by: 'ana' }] as const
  expect(hosted.seize(refused)).toBe(false)
  expect([hosted.session, hosted.seized, hosted.sessions]).toEqual([session, false, 0])
  expect(hosted.seize(FORCED)).toBe(true)
  expect([hosted.session, hosted.seized, hosted.sessions]).toEqual([null, true, 1])
  expect(hosted.seize(FORCED)).toBe(false)
  expect(hosted.isUnreported).toBe(false)
  // Nothing else is decided of it: the actor, which answers nobody here, is not even asked.
  expect(await hosted.decided({ type: 'cancel.requested', by: 'ana', reason: null })).toBe(false)
})

test('a run that only waits for its children is not said to call what has come back', async () => {
  const { ledger } = await claimed()
  const phaseAfter = (type: 'child.started' | 'tool.started' | 'tool.finished', nth: number) => {
    expect(ledger.decide(messageOf({ type } as RunEvent, nth))).toBeDefined()
    return [ledger.status, ledger.fields.phase]
  }
  expect(phaseAfter('child.started', 1)).toEqual(['waiting_on_child', 'waiting for scripted'])
  expect(phaseAfter('tool.started', 2)).toEqual(['waiting_on_tool', 'calling search'])
  expect(phaseAfter('tool.finished', 2)).toEqual(['waiting_on_child', null])
})

test('who waits for a decision on a run that leaves is answered', async () => {
  const hosted = await claimed()
  const decided = hosted.decided({ type: 'cancel.requested', by: 'ana', reason: null })
  const committed = hosted.committed()
  hosted.leave()
  expect(await decided).toBe(false)
  await committed
})

test('a delivery that does not end holds up neither a round nor the mail of others', async () => {
  const asked: string[] = []
  const mailroom = new Mailroom({
    host: { signalled: () => {} },
    inboxOf: (runId: string) => {
      asked.push(runId)
      return runId.startsWith('hung') ? new Promise(() => {}) : Promise.resolve([])
    },
  } as unknown as MailroomOptions)
  const hung = Array.from({ length: 20 }, (_, nth) => `hung ${nth}`)
  await mailroom.round(['well', ...hung])
  await mailroom.round(['well', ...hung])
  // More of them hang than are delivered to at a time; nobody is asked for again meanwhile.
  expect(asked.toSorted()).toEqual(['well', ...hung].toSorted())
})
