/** The statecharts themselves, and where a run is in its own. */
import { z } from 'zod'
import { endpoint } from './endpoint.ts'
import { listOf, statechart } from './objects.ts'
import { sequence } from './values.ts'

const text = z.string()

export const listMachines = endpoint({
  id: 'listMachines',
  method: 'GET',
  path: '/machines',
  tag: 'Charts',
  role: 'viewer',
  does: 'the statecharts',
  answers: {
    200: listOf(
      'machines',
      z.object({ id: text, version: z.number().int(), url: text, svg_url: text }),
    ),
  },
})

export const getMachine = endpoint({
  id: 'getMachine',
  method: 'GET',
  path: '/machines/{file}',
  tag: 'Charts',
  role: 'viewer',
  does: 'one of them as JSON, `.svg` or `.mmd`',
  answers: { 200: z.looseObject({ id: text, version: z.number().int() }).meta({ id: 'Machine' }) },
  also: [
    { media: 'image/svg+xml', says: '`{id}.svg`: the diagram' },
    { media: 'text/plain', says: '`{id}.mmd`: the diagram in Mermaid' },
  ],
})

export const getStatechart = endpoint({
  id: 'getStatechart',
  method: 'GET',
  path: '/runs/{run_id}/statechart',
  tag: 'Charts',
  role: 'viewer',
  does: 'where it is in its chart, since when, how it came there, which events it accepts; `?at=` a sequence',
  query: z.strictObject({ at: sequence.optional() }),
  answers: { 200: statechart },
})
