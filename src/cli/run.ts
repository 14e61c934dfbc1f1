import { type Command, Option } from 'commander'
import { RunlaneError, type Visibility } from '../client/index.ts'
import { EXIT, type Io } from './io.ts'
import { wholeNumber } from './options.ts'
import { post, postCommand } from './post.ts'
import type { Context, Does } from './context.ts'
import { eventLine, type Family, runTable, runText } from './show.ts'
import { steeringCommands } from './steering.ts'
import { jsonLine, printable } from './text.ts'
import { why } from './why.ts'

/** `runlane run …` */
export function runCommand(command: Command, does: Does): void {
  command.description('posts runs, shows them, steers them')
  does(postCommand(command.command('post')), post)
  does(
    command
      .command('show')
      .description('shows a run')
      .argument('<run_id>')
      .option('--children', 'with the runs that it delegated, and theirs'),
    show,
  )
  does(
    command
      .command('events')
      .description('prints the committed events of a run')
      .argument('<run_id>')
      .option('-f, --follow', 'goes on as they come, until the run is over')
      .option('--after <sequence>', 'those after this sequence of the run', wholeNumber)
      .addOption(
        new Option('--visibility <level>', 'how much; the service lowers it to your role')
          .choices(['user', 'operator', 'internal'])
          .default('operator'),
      ),
    events,
  )
  steeringCommands(command, does)
  does(
    command
      .command('why')
      .description('says what a run waits for, since when, and what would move it on')
      .argument('<run_id>'),
    why,
  )
}

async function show(
  context: Context,
  [runId = '']: readonly string[],
  options: { readonly children?: boolean },
) {
  const { client, io, print } = context
  const run = await client.getRun(runId, { signal: io.ended })
  if (!options.children) {
    await print(run, () => runText(run))
    return EXIT.ok
  }
  const budget = { left: CHILDREN_MAX }
  const subagents = await allowedChildren(context, runId, budget)
  await print({ ...run, subagents }, () =>
    subagents ? `${runText(run)}\nchildren\n${runTable(subagents)}` : runText(run),
  )
  if (budget.left < 0) {
    const detail = `more than ${CHILDREN_MAX} runs: the rest is not shown`
    context.warn({ code: 'too_many_children', detail })
  }
  return subagents ? EXIT.ok : EXIT.failed
}

/** Null, and said so, for a caller whose role is too small for them. */
async function allowedChildren(
  { client, io, warn }: Context,
  runId: string,
  budget: { left: number },
): Promise<Family[] | null> {
  try {
    return await childrenOf(client, runId, io.ended, budget)
  } catch (error) {
    if (!(error instanceof RunlaneError) || error.code !== 'forbidden') throw error
    warn({ code: error.code, detail: `the children are not shown: ${error.detail}`, run_id: runId })
    return null
  }
}

/** Deeper or more would be no tree to read. */
const CHILDREN_MAX = 1_000

async function childrenOf(
  client: Context['client'],
  runId: string,
  signal: AbortSignal,
  budget: { left: number },
): Promise<Family[]> {
  const found: Family[] = []
  for await (const child of client.listChildren(runId, { signal })) {
    budget.left -= 1
    if (budget.left < 0) return found
    found.push({ ...child, subagents: await childrenOf(client, child.run_id, signal, budget) })
  }
  return found
}

async function events(
  { client, io, json }: Context,
  [runId = '']: readonly string[],
  options: { readonly follow?: boolean; readonly after?: number; readonly visibility: Visibility },
) {
  const { follow, after: afterSequence, visibility } = options
  const signal = io.ended
  // A service that is not there, or a run that is not, is said at once; a stream would be patient.
  if (follow) await client.getRun(runId, { signal })
  const source = follow
    ? client.events({ runId, afterSequence, visibility, signal, onDisconnect: reconnecting(io) })
    : client.listRunEvents(runId, { afterSequence, visibility, signal, pageSize: 1000 })
  for await (const event of source) await io.write(json ? jsonLine(event) : eventLine(event))
  return EXIT.ok
}

const reconnecting =
  (io: Io) =>
  (reason: string, retryInMs: number): void =>
    io.note(`runlane: ${printable(reason)}; again in ${retryInMs} ms`)
