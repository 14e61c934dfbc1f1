import { type Command, Option } from 'commander'
import type { Machine } from '../client/index.ts'
import { EXIT } from './io.ts'
import type { Context, Does } from './context.ts'
import { fields, table } from './text.ts'

const FORMATS = ['text', 'mermaid', 'svg', 'json'] as const

/** `runlane machine …` */
export function machineCommand(command: Command, does: Does): void {
  command.description('the statecharts that runs live by')
  does<{ format: (typeof FORMATS)[number] }>(
    command
      .command('print')
      .description('prints a chart, or without an id which there are')
      .argument('[machine_id]')
      .addOption(new Option('--format <format>', 'how').choices(FORMATS).default('text')),
    (context, [id], { format }) =>
      id === undefined ? listMachines(context) : printMachine(context, id, format),
  )
}

async function listMachines({ client, io, print }: Context): Promise<number> {
  const page = await client.listMachines({ signal: io.ended })
  await print(page, () =>
    table(
      ['machine', 'version'],
      page.machines.map(({ id, version }) => [id, version]),
    ),
  )
  return EXIT.ok
}

async function printMachine(
  { client, io, print, json }: Context,
  id: string,
  format: (typeof FORMATS)[number],
): Promise<number> {
  const signal = io.ended
  if (!json && (format === 'svg' || format === 'mermaid')) {
    const kind = format === 'svg' ? 'svg' : 'mmd'
    await io.write(await client.getMachineDiagram(id, kind, { signal }))
    return EXIT.ok
  }
  const machine = await client.getMachine(id, { signal })
  if (format === 'json') await io.write(`${JSON.stringify(machine, null, 2)}\n`)
  else await print(machine, () => machineText(machine))
  return EXIT.ok
}

/** The graph as the service describes it. */
interface Graph {
  readonly initial: string
  readonly states: readonly {
    readonly id: string
    readonly kind: string
    readonly description: string
    readonly wakers: readonly string[]
  }[]
  readonly transitions: readonly {
    readonly source: string
    readonly event: string
    readonly guard: string | null
    readonly target: string | null
  }[]
}

function machineText(machine: Machine): string {
  const { initial, states, transitions } = machine as unknown as Graph
  const head = fields([
    ['machine', machine.id],
    ['version', machine.version],
    ['begins in', initial],
  ])
  const stateRows = states.map(({ id, kind, wakers, description }) => [
    ...[id, kind, wakers.join(', '), description],
  ])
  const transitionRows = transitions.map(({ source, event, guard, target }) => [
    ...[source || '(any)', event || 'always', guard && `[${guard}]`, target ?? '(stays)'],
  ])
  return [
    head,
    table(['state', 'kind', 'woken by', 'what it is'], stateRows),
    table(['from', 'on', 'if', 'to'], transitionRows),
  ].join('\n')
}
