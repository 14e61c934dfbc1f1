import { expect, inject, onTestFinished } from 'vitest'
import { createDatabase } from './postgres.ts'
import { type Service, startService } from './service.ts'
import {
  type Receiver,
  type ReceiverAnswer,
  startReceiver,
  WEBHOOK_SECRET,
} from './webhook-receiver.ts'

/** A receiver for the test that is running, to whose end it must have had nothing to complain of. */
export const receiverFor = async (
  answers: Readonly<Record<string, readonly ReceiverAnswer[]>> = {},
): Promise<Receiver> => {
  const receiver = await startReceiver(answers)
  onTestFinished(async () => {
    await receiver.close()
    expect(receiver.problems).toEqual([])
  })
  return receiver
}

/** Nodes that sign webhooks, on a database of their own; those in the array are killed when the test is over. */
export const signingNodes = async (
  count: number,
  kind: 'postgres' | 'pglite',
  env: Readonly<Record<string, string>> = {},
): Promise<{ services: Service[]; databaseUrl: string | undefined }> => {
  const own = kind === 'postgres' ? await createDatabase(inject('databaseUrl')) : undefined
  const options = {
    databaseUrl: own?.url,
    env: { RUNLANE_WEBHOOK_SECRET: WEBHOOK_SECRET, RUNLANE_LEASE: '1s', ...env },
  }
  const services = await Promise.all(Array.from({ length: count }, () => startService(options)))
  onTestFinished(async () => {
    await Promise.all(services.map((service) => service.kill()))
    await own?.drop()
  })
  return { services, databaseUrl: own?.url }
}
