import type { Context, Hono } from 'hono'
import { type CommandRow, isTerminal } from '../store/rows.ts'
import { findCommand, findRun } from '../store/runs.ts'
import { panelOf, statusOf, wantsHtml } from './agent-status.ts'
import { cancelRun, respond, resumeRun } from './contract/runs.ts'
import type { Identity } from './access/identity.ts'
import { answer, Routes } from './routes.ts'
import { existing } from './run-of-path.ts'
import { toRun } from './run-view.ts'
import type { Service } from './service.ts'
import { waitForRun } from './wait.ts'

/** Requests to a run: each is a durable, audited command, answered with 202 once it is written. */
export function commandRoutes(app: Hono, service: Service): void {
  const { commands } = service.node
  new Routes(app, service)
    .on(cancelRun, async (asked) => {
      const { params, caller, body } = asked
      return commanded(service, asked, await commands.cancel(params.run_id, caller, body))
    })
    .on(respond, async (asked) => {
      const { params, caller, body } = asked
      return commanded(service, asked, await commands.respond(params.run_id, caller, body))
    })
    .on(resumeRun, async (asked) => {
      const { params, caller, body } = asked
      const resolutions = body.resolutions as never
      const { reason } = body
      const command = await commands.resume(params.run_id, caller, { reason, resolutions })
      const answered = await commanded(service, asked, command)
      if (!wantsHtml(asked.c)) return answered
      const run = await existing(service, asked.c)
      return asked.c.html(panelOf(await statusOf(service, run)), 202)
    })
}

async function commanded(
  service: Service,
  asked: { c: Context; identity: Identity; query: { wait?: number | undefined } },
  command: CommandRow,
) {
  const {
    c,
    identity,
    query: { wait },
  } = asked
  if (wait !== undefined)
    await waitForRun(service, c, identity, wait, (row) => isTerminal(row.status))
  const run = await findRun(service.reads, command.run_id)
  const { command_id, kind, status, outcome } =
    (await findCommand(service.reads, command.command_id)) ?? command
  const shown = { command_id, kind, status, outcome }
  return answer(202, { command: shown, run: run ? toRun(run) : null })
}
