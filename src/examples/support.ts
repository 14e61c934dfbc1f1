/** A model with tools: it looks up orders and gives money back. Needs `OPENAI_API_KEY` or `OPENAI_BASE_URL`. */
import { defineAgent, tool, z } from 'runlane'

/** In the place of your own systems. */
const ORDERS = [
  { order_id: 'A-1001', email: 'ana@example.com', item: 'kettle', cents: 4900, state: 'lost' },
  { order_id: 'A-1002', email: 'ana@example.com', item: 'teapot', cents: 2900, state: 'delivered' },
  { order_id: 'A-1003', email: 'bo@example.com', item: 'mug', cents: 900, state: 'sent' },
]
/** What has been paid back, by idempotency key: a payment service keeps such a list. */
const refunds = new Map<string, { order_id: string; cents: number }>()

export default defineAgent({
  name: 'support',
  description: 'Answers customers about their orders and refunds what was lost.',
  instructions: [
    'You answer customers of a shop. Look their orders up before you say anything about them.',
    'Refund an order only if it is lost, and never more than it cost.',
    'Keep the journal up to date, so that a colleague can take over. Be brief and friendly.',
  ].join('\n'),
  models: ['openai:gpt-5.2'],
  tools: {
    find_orders: tool({
      description: 'The orders of a customer.',
      input: z.object({ email: z.email() }),
      // It changes nothing: after a crash it is just called again.
      effects: 'none',
      timeout: '10s',
      execute: ({ email }) => ORDERS.filter((order) => order.email === email),
    }),
    refund: tool({
      description: 'Pays the price of a lost order back. In cents.',
      input: z.object({ order_id: z.string(), cents: z.number().int().positive() }),
      // Safe to repeat, because the key is the same each time. Without such a key it would be `unsafe`, and after a crash
      // a human would be asked whether the money has gone out.
      effects: 'idempotent',
      timeout: '30s',
      execute({ order_id, cents }, { idempotencyKey }) {
        const order = ORDERS.find((one) => one.order_id === order_id)
        if (!order) throw new Error(`there is no order ${order_id}`)
        if (order.state !== 'lost' || cents > order.cents) throw new Error('not refundable')
        refunds.set(idempotencyKey, { order_id, cents })
        return { order_id, refunded_cents: cents }
      },
    }),
  },
})
