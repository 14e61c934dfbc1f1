import { afterAll, beforeAll, expect, test } from 'vitest'
import { openDatabase } from '../../src/store/database.ts'
import { migrate } from '../../src/store/migrate.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { scripted } from '../http/setup.ts'

const url = await freshDatabase()
const database = openDatabase({ url, notifies: false })
let replica: Replica
beforeAll(async () => {
  await migrate(database.reads)
  replica = await startReplica(url, {
    watchdog: { tool: 200 },
    autoTerminate: { mode: 'shadow', afterMs: 200 },
  })
})
afterAll(async () => {
  replica.die()
  await database.close()
})

test('what the watchdog would have done is audited as not done, and why', async () => {
  const { createRun, get, post, run } = api(replica)
  const { run_id } = await createRun(scripted([{ tool: 'lost', hang: true }]))
  const [row] = await eventually(async () => {
    const { audit } = (await get('/api/v1/admin/audit?action=watchdog.auto_terminate')).body
    return audit.length > 0 && audit
  })
  expect(row).toMatchObject({
    ...{ actor: 'watchdog', target: run_id, outcome: 'refused', code: 'shadow' },
    ...{ reason: 'tool_call.timeout(200ms)', after: null },
  })
  expect(row.before).toMatchObject({ status: 'waiting_on_tool' })
  expect((await run(run_id)).status).toBe('waiting_on_tool')
  await post(`/api/v1/admin/agent-runtime/runs/${run_id}/recycle`, { force: true })
})
