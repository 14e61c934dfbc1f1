import { readFile } from 'node:fs/promises'
import type { Hono } from 'hono'
import { describeMachine } from '../diagrams/graph.ts'
import { MACHINES } from '../diagrams/registry.ts'
import { Refusal } from '../errors.ts'
import { acceptedEvents } from '../runtime/run/accepted.ts'
import { statusHistory } from '../store/events.ts'
import type { RunStatus } from '../store/rows.ts'
import { loadHosted } from '../store/runs.ts'
import * as contract from './contract/charts.ts'
import { answer, Routes } from './routes.ts'
import { existing } from './run-of-path.ts'
import type { Service } from './service.ts'

/** The charts themselves, and where a run is in its own. */
export function chartRoutes(app: Hono, service: Service): void {
  const { node, reads } = service

  const registered = (id: string) => {
    const known = MACHINES.find(({ machine }) => machine.id === id)
    if (!known) throw new Refusal('not_found', `there is no machine ${id.slice(0, 64)}`)
    return known
  }
  const graphOf = (id: string) => {
    const { machine, version } = registered(id)
    return describeMachine(id === node.machine.id ? node.machine : machine, version)
  }

  const routes = new Routes(app, service)
  routes.on(contract.listMachines, () => {
    const machines = MACHINES.map(({ machine: { id }, version }) => ({
      id,
      version,
      url: `/machines/${id}`,
      svg_url: `/machines/${id}.svg`,
    }))
    return answer(200, { machines, next_cursor: null })
  })

  routes.on(contract.getMachine, async ({ c, params: { file } }) => {
    const [, id = file, kind] = /^([a-z-]+)(?:\.(svg|mmd))?$/.exec(file) ?? []
    const graph = graphOf(id)
    if (kind === undefined) return answer(200, { ...graph })
    const text = await readFile(new URL(`../../machines/${id}.${kind}`, import.meta.url), 'utf8')
    return c.body(text, 200, {
      'content-type': kind === 'svg' ? 'image/svg+xml' : 'text/plain; charset=utf-8',
    })
  })

  routes.on(contract.getStatechart, async ({ c, query: { at } }) => {
    const run = await existing(service, c)
    const row = await loadHosted(reads, run.run_id)
    if (!row) throw new Refusal('not_found', `there is no run ${run.run_id}`)
    const changes = await statusHistory(reads, run.run_id, at ?? row.last_sequence)
    const history = changes.map(({ sequence, payload, created_at }) => {
      const { from, to } = payload as { from: RunStatus | null; to: RunStatus }
      return { sequence, from, to, at: created_at }
    })
    const latest = history.at(-1)
    const isNow = at === undefined || at >= row.last_sequence
    return answer(200, {
      machine: 'run',
      version: registered(node.machine.id).version,
      value: isNow ? row.status : (latest?.to ?? null),
      since: isNow ? run.status_since : (latest?.at ?? null),
      history,
      // What is accepted is a question about now; of the past there is nothing left to accept.
      can: isNow ? acceptedEvents(node.machine, row) : [],
      svg_url: '/machines/run.svg',
    })
  })
}
