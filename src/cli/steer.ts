import { RunlaneError, type Resolution, type Run } from '../client/index.ts'
import { EXIT } from './io.ts'
import type { Context } from './program.ts'
import { runText } from './show.ts'
import { fields, indented, printable, table } from './text.ts'

interface SteerOptions {
  readonly reason?: string
  readonly wait?: number | true
}

/** `runlane run cancel` */
export async function cancel(
  context: Context,
  [runId = '']: readonly string[],
  options: SteerOptions,
) {
  const { reason, wait } = options
  const answer = await context.client.cancelRun(runId, { reason, signal: context.io.ended })
  if (wait !== undefined && answer.run) return waitAndShow(context, answer.run, wait, 'over')
  await context.print(answer, () => commandText(answer))
  return EXIT.ok
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
  const { reason, wait, preview, resolve: resolutions } = options
  const signal = io.ended
  if (preview) {
    const found = await client.previewResume(runId, { signal })
    await context.print(found, () => previewText(found))
    return EXIT.ok
  }
  const answer = await client.resumeRun(runId, { reason, resolutions, signal })
  if (wait !== undefined && answer.run && answer.command.status === 'applied')
    return waitAndShow(context, answer.run, wait, 'completed')
  await context.print(answer, () => commandText(answer))
  if (wait !== undefined) io.note('runlane: the command is written, but not applied yet')
  return wait === undefined ? EXIT.ok : EXIT.notCompleted
}

/** Shows the run when it is over, or as it is when the time is up. */
export async function waitAndShow(
  { client, io, print }: Context,
  { run_id }: Run,
  wait: number | true,
  wanted: 'completed' | 'over',
): Promise<number> {
  const signal = io.ended
  const timeoutMs = wait === true ? undefined : wait
  let waited = true
  const run = await client.wait(run_id, { timeoutMs, signal }).catch((error: unknown) => {
    if (signal.aborted) io.note(`runlane: ${run_id} goes on`)
    if (!(error instanceof RunlaneError) || error.code !== 'wait_timeout') throw error
    io.note(`runlane: ${printable(error.detail)}`)
    waited = false
    return client.getRun(run_id, { signal })
  })
  await print(run, () => runText(run))
  const good = wanted === 'over' ? waited : run.status === 'completed'
  return good ? EXIT.ok : EXIT.notCompleted
}

type Answer = Awaited<ReturnType<Context['client']['cancelRun']>>
const commandText = ({ command, run }: Answer): string =>
  fields([
    ['command', `${command.kind} ${command.status}`],
    ['outcome', command.outcome],
    ['run', run?.run_id],
    ['status', run?.status],
    ['detail', run?.detail],
  ])

type Preview = Awaited<ReturnType<Context['client']['previewResume']>>
function previewText({ resume_available, resume_blocker, checkpoint, ...calls }: Preview): string {
  const head = fields([
    ['resume', resume_available ? 'possible' : 'not possible'],
    ['in its way', resume_blocker],
    ['checkpoint', checkpoint && `${checkpoint.type} at sequence ${checkpoint.sequence}`],
  ])
  const replayed = calls.replayed.map((call) => [
    ...[call.tool_call_id, call.kind, call.tool, call.outcome, 'answers from its record'],
  ])
  const unknown = calls.unknown.map((call) => [
    ...[call.tool_call_id, 'tool', call.tool, 'unknown'],
    call.asks ? 'needs --resolve' : 'is made again',
  ])
  const rows = [...replayed, ...unknown]
  const heading = ['call', 'kind', 'name', 'outcome', 'a resume']
  return rows.length === 0 ? head : `${head}\n${indented(table(heading, rows))}`
}
