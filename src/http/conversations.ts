import type { Hono } from 'hono'
import { Refusal } from '../errors.ts'
import { findAgentRun, findRun, type RunView } from '../store/runs.ts'
import { demandOwn } from './access/identity.ts'
import { panelAfter, panelAnswer, statusOf, wantsHtml } from './agent-status.ts'
import { cancelAgentRun, getAgentStatus } from './contract/conversations.ts'
import { commandKey } from './idempotency.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** What a chat surface needs of its conversation. */
export function conversationRoutes(app: Hono, service: Service): void {
  const { reads, node } = service
  new Routes(app, service)
    .on(getAgentStatus, async ({ c, params: { id }, identity }) => {
      const run = await runOf(service, id)
      if (wantsHtml(c)) return panelAnswer(service, { c, identity, run })
      return answer(200, await statusOf(service, run))
    })
    .on(cancelAgentRun, async ({ c, params: { id }, identity, caller, body }) => {
      const keyed = { ...caller, key: commandKey(c, body) }
      const earlier = await node.commands.earlier(keyed)
      const run = earlier ? await findRun(reads, earlier.run_id) : await runOf(service, id)
      if (!run) throw new Refusal('not_found', 'the run is gone')
      demandOwn(identity, run)
      const act = async () => earlier ?? node.commands.cancel(run.run_id, keyed, body)
      if (wantsHtml(c)) return panelAfter(service, { c, identity, run }, act)
      await act()
      return answer(202, await statusOf(service, (await findRun(reads, run.run_id)) ?? run))
    })
}

/** The run that its status is about. @throws Refusal not_found */
async function runOf({ reads }: Service, conversationId: string): Promise<RunView> {
  const run = conversationId.length > 255 ? undefined : await findAgentRun(reads, conversationId)
  if (run) return run
  throw new Refusal(
    'not_found',
    `there is no run of the conversation ${conversationId.slice(0, 64)}`,
  )
}
