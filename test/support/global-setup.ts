import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import type { TestProject } from 'vitest/node'
import { startPostgres } from './postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A superuser's URL of the test run's server; `freshDatabase()` makes databases of their own there. */
    databaseUrl: string
  }
}

/**
 * One Postgres for the whole test run; `TEST_DATABASE_URL` names one that is there already. And an empty database for the
 * services that run on the embedded one: each gets a copy of it (`EMPTY_DATABASE`).
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'runlane-empty-'))
  const empty = join(folder, 'database')
  const given = process.env['TEST_DATABASE_URL']
  const [server] = await Promise.all([given ? null : startPostgres(), makeEmpty(empty)])
  process.env['EMPTY_DATABASE'] = empty
  project.provide('databaseUrl', server?.url ?? given ?? '')
  return async () => {
    await server?.remove()
    await rm(folder, { recursive: true })
  }
}

async function makeEmpty(folder: string): Promise<void> {
  const database = await PGlite.create(folder)
  await database.close()
}
