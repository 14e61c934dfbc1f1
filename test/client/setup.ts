import { createClient } from 'runlane/client'
import { inject, onTestFinished } from 'vitest'
import { createDatabase } from '../support/postgres.ts'
import { type Service, type ServiceOptions, startService } from '../support/service.ts'
import { type PlainProxy, startPlainProxy } from './plain-proxy.ts'

type Options = Omit<Parameters<typeof createClient>[0], 'url' | 'token'>

export const clientOf = (
  service: { url: string; token?: string | undefined },
  options: Options = {},
) => createClient({ url: service.url, token: service.token, ...options })

/** A proxy before the service and a client that comes through it. */
export const behindProxy = async (service: Service, options: Options = {}) => {
  const proxy: PlainProxy = await startPlainProxy(service.url)
  onTestFinished(() => proxy.close())
  return { proxy, client: clientOf({ url: proxy.url, token: service.token }, options) }
}

/** A service of the test's own, on a database of its own, whose runs are taken up soon after a kill. */
export const restartable = async (): Promise<Service> => {
  const database = await createDatabase(inject('databaseUrl'))
  onTestFinished(() => database.drop())
  const service = await startService({ databaseUrl: database.url, env: { RUNLANE_LEASE: '1s' } })
  onTestFinished(() => void service.kill())
  return service
}

/** Restarts it and ends the new process with the test. */
export const restarted = async (service: Service, changes?: ServiceOptions): Promise<Service> => {
  const next = await service.restart(changes)
  onTestFinished(() => void next.kill())
  return next
}

/** What a promise is rejected with. */
export const failureOf = async (promise: Promise<unknown>): Promise<unknown> => {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('it did not fail')
}

/** Of anything that can be iterated. */
export const allOf = async <T>(source: AsyncIterable<T>): Promise<T[]> => {
  const all: T[] = []
  for await (const one of source) all.push(one)
  return all
}
