import postgres from 'postgres'
import { expect, test } from 'vitest'
import { DATABASES, scripted } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import type { Service } from '../support/service.ts'
import { receiverFor, signingNodes } from '../support/webhook-stage.ts'

/** As if the claims of the dead process were over: twenty seconds, which the test on the embedded database waits for. */
const endClaims = async (url: string): Promise<void> => {
  const sql = postgres(url, { max: 1 })
  await sql`update runlane.webhook_deliveries set next_attempt_at = runlane.now() where finished_at is null`
  await sql.end()
}

test.each(DATABASES)(
  'kill -9 between a commit and its delivery loses no notice, on %s',
  async (database) => {
    const receiver = await receiverFor({ '/': ['hang', 'hang', 204] })
    const { services, databaseUrl } = await signingNodes(1, database)
    const service = services[0] as Service
    const { createBatch, createRun, waitForRun } = api(service)
    const callback_url = `${receiver.url}/`
    const asking = await createRun(scripted([{ tool: 'charge', hang: true }], { callback_url }))
    const batch = Array.from({ length: 20 }, () => scripted([{ return: 1 }], { callback_url }))
    const runs = await createBatch(batch)
    await Promise.all(runs.map(({ run_id }) => waitForRun(run_id)))
    // Two are sent and have no answer, the others are not sent: all are owed.
    await eventually(() => receiver.deliveries.length === 2)

    await service.kill()
    services[0] = await service.restart()

    if (databaseUrl !== undefined) await endClaims(databaseUrl)
    const told = () => receiver.deliveries.slice(2)
    await eventually(() => told().length >= 21, {
      timeoutMs: 40_000,
      message: () => `21 deliveries (${told().length})`,
    })
    const subjects = told().map(({ event }) => `${event.type} ${event.subject}`)
    expect(new Set(subjects)).toEqual(
      new Set([
        ...runs.map(({ run_id }) => `runlane.run.completed ${run_id}`),
        `runlane.run.human_asked ${asking.run_id}`,
      ]),
    )
    // What the dead process sent is sent again as it was.
    const bodies = told().map(({ body }) => body)
    for (const { body } of receiver.deliveries.slice(0, 2)) expect(bodies).toContain(body)
    const asked = told().find(({ event }) => event.type === 'runlane.run.human_asked')
    const payload = { token_id: expect.any(String), prompt: expect.stringContaining('charge') }
    expect(asked?.event.data).toMatchObject({ status: 'waiting_on_human', event: { payload } })
  },
  60_000,
)
