import { basename } from 'node:path'
import type { ModuleProblem } from '../../agents/directory.ts'
import type { AgentCard } from '../../agents/source.ts'
import { within } from '../../within.ts'
import { ExecutorThread, type ThreadOptions } from './thread.ts'
import type { Description } from './thread-messages.ts'

/** How long importing one module may take. */
const IMPORT_MS = 10_000

/**
 * What is in these agent modules. They are imported in a thread of their own, one after the other: a module that blocks,
 * exits or throws is a problem of its own and delays nobody but the start.
 */
export async function describeModules(
  files: string[],
  options: Omit<ThreadOptions, 'onExit'>,
): Promise<{ cards: AgentCard[]; problems: ModuleProblem[] }> {
  const cards = new Map<string, AgentCard>()
  const problems: ModuleProblem[] = []
  let thread: ExecutorThread | null = null
  for (const file of files) {
    const importer: ExecutorThread = (thread ??= new ExecutorThread({
      ...options,
      onExit: (ended) => {
        if (thread === ended) thread = null
      },
    }))
    const tooLong = `importing it took longer than ${IMPORT_MS / 1000} seconds`
    const giveUp = (): void => {
      importer.end(tooLong)
      if (thread === importer) thread = null
    }
    const description = await within<Description>(IMPORT_MS, importer.describe(file), giveUp).catch(
      () => ({ problem: tooLong }),
    )
    if ('problem' in description) {
      problems.push({ file, message: description.problem })
      continue
    }
    const { card } = description
    const other = cards.get(card.name)
    if (other?.source.from === 'module') {
      const message = `its agent ${card.name} is in ${basename(other.source.file)} already`
      problems.push({ file, message })
    } else cards.set(card.name, card)
  }
  thread?.end('all modules are described')
  return { cards: [...cards.values()], problems }
}
