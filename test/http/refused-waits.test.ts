import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { messageOfLetter } from '../../src/runtime/commands/letters.ts'
import { Ledger } from '../../src/runtime/run/ledger.ts'
import { inboxOf } from '../../src/store/runs.ts'
import { type Api, api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { type ForeignNode, foreignNode } from '../support/foreign-node.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'
import { expectProblem } from './setup.ts'

/** Who waits for the end of a run that does not do what it was asked for hears of that, and does not wait any longer. */
const url = await freshDatabase()
const sql = postgres(url, { max: 1, onnotice: () => {} })
let store: StoreStage
let replica: Replica
let client: Api
let elsewhere: ForeignNode
beforeAll(async () => {
  store = await storeStage({ url, notifies: true })
  replica = await startReplica(url)
  client = api(replica)
  elsewhere = await foreignNode(store, sql)
})
afterAll(async () => {
  replica.die()
  await store.close()
  await sql.end()
})

const STUCK = {
  type: 'stuck.noted',
  stuck_reason: 'turn.timeout(1s)',
  clock: 'turn',
  tool_call_id: null,
  limit_ms: 1_000,
  since: new Date().toISOString(),
} as const

test('a wait ends as soon as its run has refused the command', async () => {
  const runId = await elsewhere.claims()
  await elsewhere.writes(runId, STUCK)
  const askedAt = performance.now()
  const asking = client.post(`/api/v1/admin/agent-runtime/runs/${runId}/recycle?wait=60s`, {})
  const [row] = await eventually(async () => {
    const letters = await inboxOf(store.reads, runId)
    return letters.length > 0 && letters
  })
  const letter = row && messageOfLetter(row, 'elsewhere')?.letter
  if (!letter) throw new Error('the recycle has no letter')
  // Its caller waits when these, which came later, have been answered.
  for (let nth = 0; nth < 20; nth += 1) await client.run(runId)

  // Its node finds that it has recovered before it reads the letter.
  const ledger = Ledger.restore(await store.row(runId))
  ledger.decide({ type: 'stuck.cleared' })
  ledger.settleLetter(letter, 'refused', 'not possible in running')
  expect(await elsewhere.tries(ledger.take())).toBe(true)

  const answer = await asking
  expectProblem(answer, { status: 409, code: 'not_stuck' })
  expect(answer.body.detail).toMatch(/not possible in running$/)
  expect(performance.now() - askedAt).toBeLessThan(20_000)
  expect(await client.run(runId)).toMatchObject({ status: 'running' })
})
