/** What is sent to the code of a run. */
import { z } from 'zod'
import { SIGNAL_NAME } from '../../agents/port.ts'
import { endpoint } from './endpoint.ts'
import { commanded } from './objects.ts'
import { json, wait } from './values.ts'

export const signal = endpoint({
  id: 'signal',
  method: 'POST',
  path: '/runs/{run_id}/signal',
  tag: 'Runs',
  role: 'service',
  own: true,
  audits: 'agent_runtime.signal',
  does: 'sends its code a signal, for one `ctx.signalNamed(name)`; kept until that asks for it',
  keyed: true,
  query: z.strictObject({ wait }),
  body: z.strictObject({
    name: z
      .string()
      .regex(SIGNAL_NAME, 'must be 1 to 64 letters, digits, _ . : or -')
      .meta({ description: 'what the code of the run calls it' }),
    data: json.default(null),
  }),
  answers: { 202: commanded },
  refuses: ['not_active', 'too_many_signals'],
})
