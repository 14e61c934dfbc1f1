import type { Command } from 'commander'
import type { RunDraft } from '../client/index.ts'
import { EXIT, type Io, UsageError } from './io.ts'
import { integer, jsonOf, waitOption } from './options.ts'
import type { Context } from './context.ts'
import { runText } from './show.ts'
import { waitAndShow } from './wait.ts'

export const postCommand = (command: Command): Command =>
  command
    .description('posts a run')
    .argument('[agent]', 'unless --body names it')
    .option('--input <json>', 'JSON, @file, or - for stdin')
    .option('--message <text>', 'instead of --input: what a user says to an agent with a model')
    .option('--body <json>', 'all fields of POST /runs: JSON, @file, or -; other options go before')
    .option('--conversation <id>', 'the conversation that it belongs to')
    .option('--surface <name>', 'where it comes from, such as chat')
    .option('--queue <name>', 'the queue that it waits in')
    .option('--lane <key>', 'the lane that keeps its order')
    .option('--lane-policy <policy>', 'enqueue, reject, interrupt or coalesce')
    .option('--priority <number>', 'higher first', integer)
    .option('--run-at <time>', 'not before, RFC 3339')
    .option('--owner <name>', 'for people to see')
    .option('--metadata <json>', 'an object of yours: JSON, @file, or -')
    .option('--key <key>', 'Idempotency-Key: posted twice under one key, it is one run')
    .addOption(waitOption('waits until it is over, and exits with 4 unless it completed'))

interface PostOptions {
  readonly input?: string
  readonly message?: string
  readonly body?: string
  readonly conversation?: string
  readonly surface?: string
  readonly queue?: string
  readonly lane?: string
  readonly lanePolicy?: string
  readonly priority?: number
  readonly runAt?: string
  readonly owner?: string
  readonly metadata?: string
  readonly key?: string
  readonly wait?: number | true
}

/** `runlane run post` */
export async function post(context: Context, [agent]: readonly string[], options: PostOptions) {
  const { client, io } = context
  const draft = await draftOf(agent, options, io)
  const { ended: signal } = io
  const posted = await client.postRun(draft, { idempotencyKey: options.key, signal })
  if (options.wait === undefined) {
    await context.print(posted, () => runText(posted))
    return EXIT.ok
  }
  if (!context.json) io.note(`posted ${posted.run_id}`)
  return waitAndShow(context, posted, options.wait, 'completed')
}

async function draftOf(agent: string | undefined, options: PostOptions, io: Io): Promise<RunDraft> {
  const { input, message, metadata, body } = options
  if (input !== undefined && message !== undefined)
    throw new UsageError('--input and --message cannot both be given')
  if ([input, metadata, body].filter((one) => one === '-').length > 1)
    throw new UsageError('only one of --input, --metadata and --body can be read from stdin')
  const whole = body === undefined ? {} : await jsonOf('--body', body, io)
  if (typeof whole !== 'object' || whole === null || Array.isArray(whole))
    throw new UsageError('--body must be a JSON object')
  const given = {
    agent,
    input: message === undefined ? input && (await jsonOf('--input', input, io)) : { message },
    conversation_id: options.conversation,
    surface: options.surface,
    queue: options.queue,
    lane_key: options.lane,
    lane_policy: options.lanePolicy,
    priority: options.priority,
    run_at: options.runAt,
    owner: options.owner,
    metadata: metadata && (await jsonOf('--metadata', metadata, io)),
  }
  const known = Object.entries(given).filter(([, value]) => value !== undefined)
  const draft = { ...whole, ...Object.fromEntries(known) }
  if (!('agent' in draft)) throw new UsageError('which agent? runlane run post <agent>')
  // Whether names and values fit is for the service to say: it knows its version.
  return draft as unknown as RunDraft
}
