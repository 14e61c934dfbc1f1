import { Refusal } from '../errors.ts'
import { hashJson } from '../json.ts'
import { actionOf } from '../runtime/commands/command-audit.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import type { Given } from '../runtime/commands/given.ts'
import { recordAudit } from '../store/audit.ts'
import type { RequestKey } from '../store/request-keys.ts'
import { refused } from './audit.ts'
import { once } from './commands.ts'
import { STATUS } from './problem.ts'
import type { Service } from './service.ts'

/** Commands under way at the same time: enough to share commits, and to leave room for other callers. */
const AT_ONCE = 16

/** What became of one of them; a refusal says by its code why. */
export type Result =
  | { run_id: string; outcome: 'applied'; code: null }
  | { run_id: string; outcome: 'refused'; code: string }

interface Order {
  /** What kind of command each of them gets. */
  kind: string
  caller: Caller
  reason: string | undefined
  /** Of the whole order: under it each of its commands has a key of its own. */
  key: RequestKey | undefined
}

/**
 * Gives one command to each of these runs, a wave after the other, and says what became of each. A repetition under the
 * same key, even at the same time, is answered with what became of the first. Whoever carries a command out audits it; one to
 * a run that is not there leaves its row here.
 * @throws what is about no single run, such as a database that is away
 */
export async function carryOut(
  service: Service,
  waves: string[][],
  { kind, caller, reason, key }: Order,
  give: (runId: string, caller: Caller) => Promise<Given>,
): Promise<Result[]> {
  const one = async (runId: string): Promise<Result> => {
    const text = `${key?.text}#${runId}`
    const keyed = key ? { ...caller, key: { text, hash: key.hash } } : caller
    const result = await resultOf(
      runId,
      once(service, keyed, (by) => give(runId, by)),
    )
    if (result.code === 'not_found') {
      const row = refused(caller, actionOf(kind), runId, result.code)
      // A repetition leaves no second one.
      const known = key ? { audit_key: hashJson([caller.name, text]) } : {}
      await recordAudit(service.reads, { ...row, ...known, run_id: runId, reason: reason ?? null })
    }
    return result
  }
  const results: Result[] = []
  for (const wave of waves) {
    for (let start = 0; start < wave.length; start += AT_ONCE)
      results.push(...(await Promise.all(wave.slice(start, start + AT_ONCE).map(one))))
  }
  return results
}

async function resultOf(run_id: string, given: Promise<Given>): Promise<Result> {
  try {
    await given
    return { run_id, outcome: 'applied', code: null }
  } catch (error) {
    if (!(error instanceof Refusal) || STATUS[error.code] >= 500) throw error
    return { run_id, outcome: 'refused', code: error.code }
  }
}
