import { RUN_MACHINE_VERSION, type RunMachine } from '../../machines/run.ts'
import type { Sql } from '../store/database.ts'
import { recordMachine } from '../store/nodes.ts'
import { machineHash } from './run/codec.ts'
import type { Logger } from './log.ts'

/**
 * Records which chart this code runs.
 * @throws when unfinished runs were stored by a later version of it, naming one run of each
 */
export async function checkMachine(sql: Sql, machine: RunMachine, log: Logger): Promise<void> {
  const hash = machineHash(machine)
  const { storedHash, unreadable } = await recordMachine(sql, {
    machine: 'run',
    version: RUN_MACHINE_VERSION,
    hash,
  })
  if (unreadable.length > 0) {
    const runs = unreadable
      .map((one) => `${one.runs} of version ${one.version} (such as ${one.run_id})`)
      .join(', ')
    throw new Error(
      `unfinished runs were stored by another chart than version ${RUN_MACHINE_VERSION}: ${runs}`,
    )
  }
  if (storedHash !== hash) {
    log.warn(
      { stored: storedHash, mine: hash },
      'the run chart differs from the one stored under its version',
    )
  }
}
