import { afterAll, describe, expect, test } from 'vitest'
import { type Api, api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const service = await startService({ databaseUrl: await freshDatabase() })
afterAll(() => service.kill())
const admin = api(service)
const as = async (name: string, role: string): Promise<Api> => {
  const { body } = await admin.post('/api/v1/admin/tokens', { name, role })
  return api({ url: service.url, token: body.token })
}
const [mine, other, operator] = await Promise.all([
  as('mine', 'service'),
  as('other', 'service'),
  as('olga', 'operator'),
])

const long = [{ think: 60_000 }]
const auditOf = async (run_id: string) =>
  (await admin.get('/api/v1/admin/audit?limit=200')).body.audit.filter(
    (row: { run_id: string }) => row.run_id === run_id,
  )

describe('a lane that others use too', () => {
  test.each([
    ['/runs', (body: object) => body],
    ['/runs/batch', (body: object) => ({ runs: [scripted([]), body] })],
  ])("a service's %s interrupts no run that it did not create", async (path, asked) => {
    const lane_key = `interrupt ${path}`
    const holder = await mine.createRun(scripted(long, { lane_key }))
    const body = scripted([], { lane_key, lane_policy: 'interrupt' })

    const refused = await other.post(path, asked(body))

    expectProblem(refused, { status: 403, code: 'forbidden' })
    expect(refused.body.run_id).toBe(holder.run_id)
    expect((await admin.run(holder.run_id)).status).toBe('running')
    expect((await admin.get(`/runs?lane_key=${lane_key}`)).body.runs).toHaveLength(1)
    expect(await auditOf(holder.run_id)).toMatchObject([
      { actor: 'token:other', action: 'run.lane_policy', outcome: 'refused', code: 'forbidden' },
    ])

    const own = await mine.createRun(body)
    expect((await admin.waitForRun(holder.run_id)).status).toBe('cancelled')
    expect((await admin.waitForRun(own.run_id)).status).toBe('completed')
  })

  test('a service coalesces with no run that it did not create', async () => {
    const lane_key = 'coalesce'
    const holder = await mine.createRun(scripted(long, { lane_key }))
    const waiting = await mine.createRun(scripted([{ return: 'mine' }], { lane_key }))
    const body = (text: string) =>
      scripted([{ return: text }], { lane_key, lane_policy: 'coalesce' })

    const refused = await other.post('/runs', body('theirs'))

    expectProblem(refused, { status: 403, code: 'forbidden' })
    expect(refused.body.run_id).toBe(waiting.run_id)
    expect((await mine.post('/runs', body('mine too'))).status).toBe(200)
    await admin.cancel(holder.run_id)
    expect(await admin.waitForRun(waiting.run_id)).toMatchObject({ output: 'mine too' })
  })

  test('an operator may do both, and who replaced an input is told and audited', async () => {
    const lane_key = 'operator'
    const holder = await mine.createRun(scripted(long, { lane_key }))
    const waiting = await mine.createRun(scripted([{ return: 'mine' }], { lane_key }))
    const body = scripted([{ return: 'better' }], { lane_key, lane_policy: 'coalesce' })
    expect((await operator.post('/runs', body)).body.run_id).toBe(waiting.run_id)

    const told = (await admin.events(waiting.run_id)).filter(
      ({ event_type }) => event_type === 'run_input_replaced',
    )
    expect(told).toMatchObject([{ payload: { by: 'token:olga' } }])
    expect(await auditOf(waiting.run_id)).toMatchObject([
      { actor: 'token:olga', role: 'operator', action: 'run.replace_input', outcome: 'applied' },
    ])
    await operator.createRun(scripted([], { lane_key, lane_policy: 'interrupt' }))
    expect((await admin.waitForRun(holder.run_id)).status).toBe('cancelled')
    expect(await admin.waitForRun(waiting.run_id)).toMatchObject({ output: 'better' })
  })
})
