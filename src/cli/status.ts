import type { Command } from 'commander'
import type { RunStatus } from '../client/index.ts'
import { EXIT } from './io.ts'
import type { Context, Does } from './context.ts'
import { agentStatusText } from './show.ts'
import { fields, indented, table } from './text.ts'

/** `runlane status` */
export function statusCommand(command: Command, does: Does): void {
  does(
    command
      .description('how the service is: readiness, unfinished runs, agents, nodes')
      .argument('[conversation_id]', 'instead: where this conversation is'),
    (context, [conversationId]) =>
      conversationId === undefined ? ofService(context) : ofConversation(context, conversationId),
  )
}

async function ofConversation({ client, io, print }: Context, id: string): Promise<number> {
  const status = await client.getAgentStatus(id, { signal: io.ended })
  await print(status, () => agentStatusText(status))
  return EXIT.ok
}

const UNFINISHED: readonly RunStatus[] = [
  ...(['queued', 'waiting_on_lane', 'resuming', 'running', 'waiting_on_tool'] as const),
  ...(['waiting_on_child', 'cancel_requested', 'waiting_on_human'] as const),
]
/** Who has more wants a metric, not a list. */
const COUNTED_MAX = 5_000

async function ofService(context: Context): Promise<number> {
  const { client, io, print, url, tokenOf } = context
  const signal = io.ended
  const [{ version }, ready] = await Promise.all([
    client.healthz({ signal }),
    client.readyz({ signal }),
  ])
  const inside = tokenOf === undefined ? undefined : await insideOf(context)
  await print({ url, version, ready, ...inside }, () => {
    const yes = (good: boolean): string => (good ? 'yes' : 'no')
    const head = fields([
      ['service', url],
      ['version', version],
      [
        'ready',
        `${yes(ready.status === 'ready')} (database ${yes(ready.database)}, lease ${yes(ready.lease)})`,
      ],
      ['node', ready.node],
      [
        'you',
        inside
          ? `${inside.identity.name}, ${inside.identity.role}`
          : 'nobody: no token was sent (--token-file, RUNLANE_TOKEN)',
      ],
      ['unfinished', inside && countText(inside.runs)],
      ['stuck', inside && inside.runs.stuck > 0 ? inside.runs.stuck : null],
      ['agents', inside?.agents.map(({ name }) => name).join(', ')],
    ])
    if (!inside) return head
    const problems = inside.problems.map((one) => [
      'file' in one ? one.file : one.name,
      one.message,
    ])
    const nodes = inside.nodes?.map((node) => [
      ...[node.node_id, node.status, node.version, node.active_runs, node.last_seen_at],
    ])
    const block = (name: string, heading: string[], rows: Parameters<typeof table>[1] = []) =>
      rows.length === 0 ? '' : `\n${name}\n${indented(table(heading, rows))}`
    return [
      head,
      block('agents that cannot be used', ['agent', 'why'], problems),
      block('nodes', ['node', 'status', 'version', 'runs', 'last seen'], nodes),
    ].join('')
  })
  return ready.status === 'ready' ? EXIT.ok : EXIT.failed
}

/** What there is to know with a token; the nodes are for admins. */
async function insideOf({ client, io }: Context) {
  const signal = io.ended
  const identity = await client.whoAmI({ signal })
  const [{ agents, problems }, runs, nodes] = await Promise.all([
    client.listAgents({ signal }),
    countRuns(client, signal),
    identity.role === 'admin' ? client.listNodes({ signal }) : undefined,
  ])
  return { identity, runs, agents, problems, nodes: nodes?.nodes }
}

async function countRuns(client: Context['client'], signal: AbortSignal) {
  const by_status: Partial<Record<RunStatus, number>> = {}
  const counted = { total: 0, stuck: 0, more: false, by_status }
  for await (const run of client.listRuns({ status: UNFINISHED, pageSize: 1000, signal })) {
    if (counted.total === COUNTED_MAX) return { ...counted, more: true }
    counted.total += 1
    counted.stuck += run.stuck_reason === null ? 0 : 1
    by_status[run.status] = (by_status[run.status] ?? 0) + 1
  }
  return counted
}

function countText({ total, more, by_status }: Awaited<ReturnType<typeof countRuns>>): string {
  const parts = Object.entries(by_status).map(([status, count]) => `${count} ${status}`)
  return `${total}${more ? ' and more' : ''}${parts.length === 0 ? '' : ` (${parts.join(', ')})`}`
}
