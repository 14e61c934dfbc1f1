import type { Hono } from 'hono'
import { Refusal } from '../errors.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import { JSON_KEY_LENGTH_MAX } from '../json.ts'
import { findAgentRun, findRun, type RunView } from '../store/runs.ts'
import { demandOwn } from './access/identity.ts'
import { emptyPanel, panelAfter, panelAnswer, statusOf, wantsHtml } from './agent-status.ts'
import { cancelAgentRun, getAgentStatus } from './contract/conversations.ts'
import { once } from './commands.ts'
import { commandKey, replayedHeader } from './idempotency.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** What a chat surface needs of its conversation. */
export function conversationRoutes(app: Hono, service: Service): void {
  const { reads, node } = service
  new Routes(app, service)
    .on(getAgentStatus, async ({ c, params: { id }, identity }) => {
      const run = await foundRun(service, id)
      if (!wantsHtml(c)) return answer(200, await statusOf(service, run ?? noRun(id)))
      return run ? panelAnswer(service, { c, identity, run }) : emptyPanel(c, id)
    })
    .on(cancelAgentRun, async ({ c, params: { id }, identity, caller, body }) => {
      const keyed = { ...caller, key: commandKey(c, body) }
      const earlier = await node.commands.earlier(keyed)
      const run = earlier
        ? await findRun(reads, earlier.run_id)
        : ((await foundRun(service, id)) ?? noRun(id))
      if (!run) throw new Refusal('not_found', 'the run is gone')
      demandOwn(identity, run)
      const headers: Record<string, string> = {}
      const act = async () => {
        const give = (by: Caller) => node.commands.cancel(run.run_id, by, body)
        const { replayed } = earlier ?? (await once(service, keyed, give))
        Object.assign(headers, replayedHeader(replayed))
      }
      if (wantsHtml(c)) return panelAfter(service, { c, identity, run, headers }, act)
      await act()
      const after = (await findRun(reads, run.run_id)) ?? run
      return answer(202, await statusOf(service, after), headers)
    })
}

/** The run that its status is about; undefined while the conversation has none. @throws Refusal not_found */
async function foundRun({ reads }: Service, id: string): Promise<RunView | undefined> {
  // No run ever has such a conversation.
  return id.length > JSON_KEY_LENGTH_MAX ? noRun(id) : findAgentRun(reads, id)
}

function noRun(id: string): never {
  throw new Refusal('not_found', `there is no run of the conversation ${id.slice(0, 64)}`)
}
