import { Refusal } from '../errors.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import type { RequestKey } from '../store/request-keys.ts'
import type { CommandRow } from '../store/rows.ts'
import { STATUS } from './problem.ts'
import type { Service } from './service.ts'

/** Commands under way at the same time: enough to share commits, and to leave room for other callers. */
const AT_ONCE = 16

/** What became of one of them; a refusal says by its code why. */
export type Result =
  | { run_id: string; outcome: 'applied'; code: null }
  | { run_id: string; outcome: 'refused'; code: string | null }

interface Order {
  caller: Caller
  /** Of the whole order: under it each of its commands has a key of its own. */
  key: RequestKey | undefined
}

/**
 * Gives one command to each of these runs, a wave after the other, and says what became of each. A repetition under the
 * same key, even at the same time, is answered with what became of the first.
 * @throws what is about no single run, such as a database that is away
 */
export async function carryOut(
  service: Service,
  waves: string[][],
  { caller, key }: Order,
  give: (runId: string, caller: Caller) => Promise<CommandRow>,
): Promise<Result[]> {
  const one = async (runId: string): Promise<Result> => {
    const text = `${key?.text}#${runId}`
    const keyed = key ? { ...caller, key: { text, hash: key.hash } } : caller
    return resultOf(
      runId,
      once(service, keyed, (by) => give(runId, by)),
    )
  }
  const results: Result[] = []
  for (const wave of waves) {
    for (let start = 0; start < wave.length; start += AT_ONCE)
      results.push(...(await Promise.all(wave.slice(start, start + AT_ONCE).map(one))))
  }
  return results
}

/** As a single command, unless it was given before under the same key. @throws Refusal */
async function once(
  { node: { commands } }: Service,
  caller: Caller,
  give: (caller: Caller) => Promise<CommandRow>,
): Promise<CommandRow> {
  const earlier = await commands.earlier(caller)
  if (earlier) return earlier
  try {
    return await give(caller)
  } catch (error) {
    // The same request at the same time was first, and what it did is why this one is refused.
    const first = error instanceof Refusal ? await commands.earlier(caller) : undefined
    if (first) return first
    throw error
  }
}

async function resultOf(run_id: string, given: Promise<CommandRow>): Promise<Result> {
  try {
    const { status, outcome } = await given
    if (status === 'refused') return { run_id, outcome: 'refused', code: outcome }
    return { run_id, outcome: 'applied', code: null }
  } catch (error) {
    if (!(error instanceof Refusal) || STATUS[error.code] >= 500) throw error
    return { run_id, outcome: 'refused', code: error.code }
  }
}
