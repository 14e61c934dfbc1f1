import type { Resolution } from '../client/index.ts'
import { EXIT, UsageError } from './io.ts'
import { jsonOf } from './options.ts'
import type { Context } from './context.ts'
import { runText } from './show.ts'
import { fields, indented, table } from './text.ts'
import { waitAndShow } from './wait.ts'

interface SteerOptions {
  readonly reason?: string
  readonly key?: string
  readonly wait?: number | true
}

const asked = ({ io }: Context, { reason, key }: SteerOptions) => ({
  reason,
  idempotencyKey: key,
  signal: io.ended,
})

/** `runlane run cancel` */
export const cancel = (context: Context, [runId = '']: readonly string[], options: SteerOptions) =>
  ended(context, options.wait, context.client.cancelRun(runId, asked(context, options)))

/** `runlane run stop` */
export const stop = (context: Context, [target = '']: readonly string[], options: SteerOptions) =>
  ended(context, options.wait, context.client.stopRun(target, asked(context, options)))

/** `runlane run interrupt` */
export const interrupt = (
  context: Context,
  [runId = '']: readonly string[],
  options: SteerOptions,
) => ended(context, options.wait, context.client.interruptSubagent(runId, asked(context, options)))

/** `runlane run recycle` */
export const recycle = (
  context: Context,
  [target = '']: readonly string[],
  { force, ...options }: SteerOptions & { readonly force?: boolean },
) => {
  const request = { ...asked(context, options), force }
  return ended(context, options.wait, context.client.recycleRun(target, request))
}

/** `runlane run fork` */
export async function fork(
  context: Context,
  [runId = '']: readonly string[],
  options: SteerOptions & { readonly checkpoint: string; readonly input?: string },
) {
  const { client, io, json, print } = context
  const { checkpoint, wait } = options
  const input = options.input && (await jsonOf('--input', options.input, io))
  const request = { ...asked(context, options), input }
  const forked = await client.forkRun(runId, checkpoint, request)
  if (wait === undefined) {
    await print(forked, () => runText(forked))
    return EXIT.ok
  }
  if (!json) io.note(`forked ${forked.run_id}`)
  return waitAndShow(context, forked, wait, 'completed')
}

/** `runlane run extend` */
export async function extend(
  context: Context,
  [runId = '']: readonly string[],
  { by, ...options }: SteerOptions & { readonly by: number },
) {
  const answer = await context.client.extendRun(runId, by, asked(context, options))
  await context.print(answer, () => commandText(answer))
  return EXIT.ok
}

/** `runlane run sweep` */
export async function sweep(context: Context, _args: readonly string[], options: SteerOptions) {
  const swept = await context.client.sweep(asked(context, options))
  await context.print(swept, () => fields([['recycled', swept.recycled]]) + listed(swept.run_ids))
  return EXIT.ok
}

/** `runlane run respond` */
export async function respond(
  context: Context,
  [runId = '']: readonly string[],
  options: AnswerOptions & {
    readonly question?: string
    readonly key?: string
    readonly wait?: number | true
  },
) {
  const { client, io } = context
  const { question: tokenId, key: idempotencyKey, wait } = options
  const answer = await answerOf(options, io)
  const request = { tokenId, idempotencyKey, signal: io.ended }
  return completed(context, wait, await client.respond(runId, answer, request))
}

/** `runlane run signal` */
export async function sendSignal(
  context: Context,
  [runId = '', name = '', data]: readonly string[],
  { key, wait }: Pick<SteerOptions, 'key' | 'wait'>,
) {
  const { client, io } = context
  const value = data === undefined ? null : await jsonOf('the data', data, io)
  const request = { idempotencyKey: key, signal: io.ended }
  return completed(context, wait, await client.signal(runId, name, value, request))
}

interface AnswerOptions {
  readonly outcome?: Resolution['outcome']
  readonly result?: string
  readonly answer?: string
}

async function answerOf({ outcome, result, answer }: AnswerOptions, io: Context['io']) {
  if ((outcome === undefined) === (answer === undefined))
    throw new UsageError('give either --outcome, or --answer')
  if (answer !== undefined && result !== undefined)
    throw new UsageError('--result goes with --outcome')
  if (answer !== undefined) return jsonOf('--answer', answer, io)
  const known = result === undefined ? {} : { result: await jsonOf('--result', result, io) }
  return { outcome, ...known }
}

/** `runlane run resume` */
export async function resume(
  context: Context,
  [runId = '']: readonly string[],
  options: SteerOptions & {
    readonly preview?: boolean
    readonly resolve?: Readonly<Record<string, Resolution>>
  },
) {
  const { client, io } = context
  const { wait, preview, resolve: resolutions } = options
  const signal = io.ended
  if (preview) {
    const found = await client.previewResume(runId, { signal })
    await context.print(found, () => previewText(found))
    return EXIT.ok
  }
  const request = { ...asked(context, options), resolutions }
  return completed(context, wait, await client.resumeRun(runId, request))
}

type Answer = Awaited<ReturnType<Context['client']['cancelRun']>>

/** Of a command that ends a run: shown when it is over, if that is to be waited for. */
async function ended(
  context: Context,
  wait: number | true | undefined,
  asking: Promise<Answer>,
): Promise<number> {
  const answer = await asking
  if (wait !== undefined && answer.run) return waitAndShow(context, answer.run, wait, 'over')
  await context.print(answer, () => commandText(answer))
  return EXIT.ok
}

/** Of a command that lets a run go on: until it was applied, waiting would see the state before. */
async function completed(
  context: Context,
  wait: number | true | undefined,
  answer: Answer,
): Promise<number> {
  const { command, run } = answer
  if (wait !== undefined && run && command.status === 'applied')
    return waitAndShow(context, run, wait, 'completed')
  await context.print(answer, () => commandText(answer))
  if (wait === undefined) return EXIT.ok
  const detail = `the command is ${command.status === 'pending' ? 'written, but not applied yet' : command.status}`
  context.warn({ code: 'not_applied', detail, run_id: run?.run_id ?? null })
  return EXIT.notCompleted
}

const listed = (names: readonly string[]): string => names.map((name) => `  ${name}\n`).join('')

const commandText = ({ command, run }: Answer): string =>
  fields([
    ['command', `${command.kind} ${command.status}`],
    ['outcome', command.outcome],
    ['run', run?.run_id],
    ['status', run?.status],
    ['detail', run?.detail],
  ])

type Preview = Awaited<ReturnType<Context['client']['previewResume']>>
function previewText(found: Preview): string {
  const { resume_available, resume_blocker, checkpoint, late_result, ...calls } = found
  const head = fields([
    ['resume', resume_available ? 'possible' : 'not possible'],
    ['in its way', resume_blocker],
    ['checkpoint', checkpoint && `${checkpoint.type} at sequence ${checkpoint.sequence}`],
    [
      'late result',
      late_result && `came at ${late_result.at}; a resume goes on without it, --json shows it`,
    ],
  ])
  const replayed = calls.replayed.map((call) => [
    ...[call.tool_call_id, call.kind, call.tool, call.outcome],
    call.outcome === 'started' ? `waits for ${call.child_run_id}` : 'answers from its record',
  ])
  const unknown = calls.unknown.map((call) => [
    ...[call.tool_call_id, call.kind, call.tool, call.child_run_id ? 'cut off' : 'unknown'],
    call.asks ? 'needs --resolve' : 'is made again',
  ])
  const rows = [...replayed, ...unknown]
  const heading = ['call', 'kind', 'name', 'outcome', 'a resume']
  return rows.length === 0 ? head : `${head}\n${indented(table(heading, rows))}`
}
