import { AsyncLocalStorage } from 'node:async_hooks'
import { syncBuiltinESMExports } from 'node:module'
import { messageOf } from '../../errors.ts'

/** Whose code is running: follows promises, timers and events. */
const running = new AsyncLocalStorage<number>()

export const asSession = <T>(session: number, work: () => T): T => running.run(session, work)

/**
 * Keeps one run's mistakes from ending the thread of the others: an exit becomes an error of whoever asked for it, and
 * an error that nobody caught is told with the session whose code threw it.
 */
export function guardThread(
  process: NodeJS.Process,
  onUncaught: (session: number | null, message: string) => void,
): void {
  const refuse = (name: string) => (): never => {
    throw new Error(`${name} is not available to agents: the run ends by returning or throwing`)
  }
  Object.assign(process, {
    exit: refuse('process.exit()'),
    reallyExit: refuse('process.reallyExit()'),
    abort: refuse('process.abort()'),
    kill: guardedKill(process),
  })
  // `import { exit } from 'node:process'` is to mean these as well.
  syncBuiltinESMExports()
  const tell = (error: unknown): void => onUncaught(running.getStore() ?? null, messageOf(error))
  process.on('uncaughtException', tell)
  process.on('unhandledRejection', tell)
}

/** Ending other processes is the tool's business; ending the service is not. */
function guardedKill(process: NodeJS.Process): typeof process.kill {
  const kill = process.kill.bind(process)
  return (pid, signal) => {
    // Node takes numbers as text too; 0 is the service's own process group and -1 every process of its user.
    const target: unknown = pid
    const isService = [process.pid, -process.pid, 0, -1].includes(Number(target))
    if (isService && signal !== 0)
      throw new Error('process.kill() of the service itself is not available to agents')
    return kill(pid, signal)
  }
}
