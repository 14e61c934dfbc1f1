import { type Context, Hono } from 'hono'
import { z } from 'zod'
import type { Json } from '../json.ts'
import { type CommandRow, isTerminal } from '../store/rows.ts'
import { findCommand, findRun } from '../store/runs.ts'
import { callerOf } from './auth.ts'
import { readBody, readQuery } from './body.ts'
import { toRun } from './run-view.ts'
import type { Service } from './service.ts'
import { waitForRun, waitQuery } from './wait.ts'

const reason = z.string().max(1000).optional()
const json = z.custom<Json>((value) => value !== undefined, 'is required')
const resolution = z.strictObject({
  outcome: z.enum(['succeeded', 'failed', 'retry']),
  result: json.optional(),
})

const cancelBody = z.strictObject({ reason })
const resumeBody = z.strictObject({
  reason,
  resolutions: z.record(z.string().max(255), resolution).optional(),
})
const respondBody = z.strictObject({ answer: json, token_id: z.string().max(255).optional() })
const commandQuery = z.strictObject({ wait: waitQuery })

/** Requests to a run: each is a durable, audited command, answered with 202 once it is written. */
export function commandRoutes(service: Service): Hono {
  const { node, bodyLimitBytes } = service
  const app = new Hono()

  app.post('/runs/:run_id/cancel', async (c) => {
    const { wait } = readQuery(c, commandQuery)
    const body = await readBody(c, cancelBody, bodyLimitBytes)
    const command = await node.commands.cancel(c.req.param('run_id'), callerOf(c), body)
    return answer(service, c, command, wait)
  })

  app.post('/agent-runs/:run_id/resume', async (c) => {
    const { wait } = readQuery(c, commandQuery)
    const body = await readBody(c, resumeBody, bodyLimitBytes)
    const command = await node.commands.resume(c.req.param('run_id'), callerOf(c), {
      reason: body.reason,
      resolutions: body.resolutions as never,
    })
    return answer(service, c, command, wait)
  })

  app.post('/runs/:run_id/respond', async (c) => {
    const { wait } = readQuery(c, commandQuery)
    const body = await readBody(c, respondBody, bodyLimitBytes)
    const command = await node.commands.respond(c.req.param('run_id'), callerOf(c), body)
    return answer(service, c, command, wait)
  })

  return app
}

async function answer(
  service: Service,
  c: Context,
  command: CommandRow,
  waitMs: number | undefined,
): Promise<Response> {
  if (waitMs !== undefined) await waitForRun(service, c, waitMs, (row) => isTerminal(row.status))
  const run = await findRun(service.reads, command.run_id)
  const { command_id, kind, status, outcome } =
    (await findCommand(service.reads, command.command_id)) ?? command
  return c.json(
    { command: { command_id, kind, status, outcome }, run: run ? toRun(run) : null },
    202,
  )
}
