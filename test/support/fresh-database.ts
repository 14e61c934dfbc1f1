import { afterAll, inject } from 'vitest'
import { createDatabase } from './postgres.ts'

/**
 * An empty database on the test run's server, dropped after the tests of the file (or `describe`) that asked for it.
 * Call it while tests are collected, not inside one: `const url = await freshDatabase()`.
 */
export async function freshDatabase(): Promise<string> {
  const database = await createDatabase(inject('databaseUrl'))
  afterAll(() => database.drop())
  return database.url
}
