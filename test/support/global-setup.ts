import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { openDatabase } from '../../src/store/database.ts'
import { startEmbedded } from '../../src/store/embedded.ts'
import { migrate } from '../../src/store/migrate.ts'
import { startPostgres } from './postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** A superuser's URL of the test run's server; `freshDatabase()` makes databases of their own there. */
    databaseUrl: string
  }
}

/**
 * One Postgres for the whole test run; `TEST_DATABASE_URL` names one that is there already. And what hundreds of services
 * would otherwise make anew: a migrated embedded database, of which each gets a copy (`MIGRATED_DATABASE`), and their compiled
 * code (`COMPILE_CACHE`).
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'runlane-template-'))
  const given = process.env['TEST_DATABASE_URL']
  const [server] = await Promise.all([given ? null : startPostgres(), migrateEmbedded(folder)])
  process.env['MIGRATED_DATABASE'] = join(folder, 'database')
  process.env['COMPILE_CACHE'] = join(folder, 'compiled')
  project.provide('databaseUrl', server?.url ?? given ?? '')
  return async () => {
    await server?.remove()
    await rm(folder, { recursive: true })
  }
}

async function migrateEmbedded(folder: string): Promise<void> {
  const embedded = await startEmbedded(folder)
  const database = openDatabase(embedded.target)
  await migrate(database.reads)
  await database.close()
  await embedded.close()
}
