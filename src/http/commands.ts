import type { Context, Hono } from 'hono'
import { Refusal } from '../errors.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import { type Given, notRefused } from '../runtime/commands/given.ts'
import { unknownCalls } from '../runtime/run/resume.ts'
import { type CommandRow, isTerminal } from '../store/rows.ts'
import { findCommand, findRun, loadCalls, type RunView } from '../store/runs.ts'
import type { Identity } from './access/identity.ts'
import { panelAfter, wantsHtml } from './agent-status.ts'
import { cancelRun, extendRun, respond, resumeRun } from './contract/runs.ts'
import { signal } from './contract/signals.ts'
import { commandKey, replayedHeader } from './idempotency.ts'
import { answer, Routes } from './routes.ts'
import { existing } from './run-of-path.ts'
import { toRun } from './run-view.ts'
import type { Service } from './service.ts'
import { waitForRun } from './wait.ts'

interface Asked {
  c: Context
  identity: Identity
  caller: Caller
  query?: { wait?: number | undefined } | undefined
  body: object
}

/** Gives a command, unless this caller has given it before under the same key. @throws Refusal */
export async function once(
  { node: { commands } }: Service,
  caller: Caller,
  give: (caller: Caller) => Promise<Given>,
): Promise<Given> {
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

/**
 * The same, answered with 202 and the run as it is then, or at the end of a wait. What its run refuses by then is a 409, and
 * is not waited for any longer.
 */
export async function giveOnce(
  service: Service,
  { c, identity, caller, query, body }: Asked,
  give: (keyed: Caller) => Promise<Given>,
) {
  const keyed = { ...caller, key: commandKey(c, body) }
  // Before anything is done: what was done must not be answered as if it had been refused.
  if (query?.wait !== undefined) service.connections.demand(identity.name)
  const command = await once(service, keyed, give)
  const { run_id, replayed } = command
  const wait = query?.wait
  const headers = replayedHeader(replayed)
  if (wait !== undefined && !(await waited(service, { c, identity, command }, wait)))
    return answer(202, { command: shown(command), run: null }, headers)
  const run = await findRun(service.reads, run_id)
  const written = (await findCommand(service.reads, command.command_id)) ?? command
  return answer(202, { command: shown(notRefused(written)), run: run ? toRun(run) : null }, headers)
}

const shown = ({ command_id, kind, status, outcome }: CommandRow) => {
  return { command_id, kind, status, outcome }
}

/** False when its caller may not come in any more: the command was given, but nothing else is shown. */
async function waited(
  service: Service,
  { c, identity, command }: { c: Context; identity: Identity; command: CommandRow },
  waitMs: number,
) {
  const { command_id, run_id } = command
  // Either of them is an event of the run, which is when it is looked at again.
  const isOver = async ({ status }: RunView): Promise<boolean> =>
    isTerminal(status) || (await findCommand(service.reads, command_id))?.status === 'refused'
  try {
    await waitForRun(service, { c, identity, run_id }, waitMs, isOver)
    return true
  } catch (error) {
    if (error instanceof Refusal && error.code === 'unauthorized') return false
    throw error
  }
}

/** Requests to a run: each is a durable, audited command, answered with 202 once it is written. */
export function commandRoutes(app: Hono, service: Service): void {
  const { commands } = service.node
  const given = (asked: Asked, give: (keyed: Caller) => Promise<Given>) =>
    giveOnce(service, asked, give)

  new Routes(app, service)
    .on(cancelRun, (asked) =>
      given(asked, (caller) => commands.cancel(asked.params.run_id, caller, asked.body)),
    )
    .on(extendRun, (asked) =>
      given(asked, (caller) => {
        const { by, reason } = asked.body
        return commands.extend(asked.params.run_id, caller, { by_ms: by, reason })
      }),
    )
    .on(signal, (asked) =>
      given(asked, (caller) => commands.signal(asked.params.run_id, caller, asked.body)),
    )
    .on(respond, (asked) =>
      given(asked, (caller) => commands.respond(asked.params.run_id, caller, asked.body)),
    )
    .on(resumeRun, async (asked) => {
      const { reason } = asked.body
      const resolutions = asked.body.resolutions as never
      const { run_id } = asked.params
      const act = () =>
        given(asked, (caller) =>
          commands
            .resume(run_id, caller, { reason, resolutions })
            .catch((error: unknown) => unresolved(service, run_id, resolutions ?? {}, error)),
        )
      const { c, identity } = asked
      if (!wantsHtml(c)) return act()
      const headers: Record<string, string> = {}
      return panelAfter(
        service,
        { c, identity, run: await existing(service, c), headers },
        async () => Object.assign(headers, (await act()).headers),
      )
    })
}

/** So many calls are named in a sentence; the problem document has them all. */
const NAMED_MAX = 10

/** Says of a resume that was refused for calls of unknown outcome which they are, and what is wanted of them. */
async function unresolved(
  { reads }: Service,
  runId: string,
  resolutions: object,
  error: unknown,
): Promise<never> {
  if (!(error instanceof Refusal) || error.code !== 'unknown_tool_call') throw error
  const unknown_calls = unknownCalls(await loadCalls(reads, runId))
    .filter(({ tool_call_id }) => !Object.hasOwn(resolutions, tool_call_id))
    .map(({ tool_call_id, tool }) => ({ tool_call_id, tool }))
  const names = unknown_calls.map(({ tool_call_id, tool }) => `${tool_call_id} (${tool})`)
  const more = names.length > NAMED_MAX ? ` and ${names.length - NAMED_MAX} more` : ''
  const example = JSON.stringify(unknown_calls[0]?.tool_call_id ?? 'tool_call_id')
  throw new Refusal(
    error.code,
    `whether they happened is not known of the calls ${names.slice(0, NAMED_MAX).join(', ')}${more}: resume with "resolutions": {${example}: {"outcome": "succeeded", "result": …}}, where the outcome of each is "succeeded", "failed" or "retry"`,
    { ...error.details, unknown_calls },
  )
}
