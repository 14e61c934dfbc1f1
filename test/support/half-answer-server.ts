import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A provider whose answers begin well and end, in good order on the wire, before the model has finished. */
export const startHalfAnswerServer = async (): Promise<{ url: string; close(): Promise<void> }> => {
  const server = createServer((request, response) => {
    request.resume()
    const [, begun] = Object.entries(BEGUN).find(([path]) => request.url?.endsWith(path)) ?? []
    response.writeHead(begun ? 200 : 404, { 'content-type': 'text/event-stream' })
    for (const data of begun ?? []) {
      const event = 'type' in data ? `event: ${data.type}\n` : ''
      response.write(`${event}data: ${JSON.stringify(data)}\n\n`)
    }
    response.end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

const TEXT = 'Half an'

const BEGUN = {
  '/chat/completions': [
    {
      id: 'chat_1',
      object: 'chat.completion.chunk',
      created: 1,
      model: 'm',
      choices: [{ index: 0, delta: { role: 'assistant', content: TEXT }, finish_reason: null }],
    },
  ],
  '/messages': [
    {
      type: 'message_start',
      message: {
        id: 'msg_1',
        type: 'message',
        role: 'assistant',
        model: 'm',
        content: [],
        stop_reason: null,
        usage: { input_tokens: 1, output_tokens: 1 },
      },
    },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: TEXT } },
  ],
  '/responses': [
    { type: 'response.created', response: { id: 'resp_1', created_at: 1, model: 'm' } },
    {
      type: 'response.output_item.added',
      output_index: 0,
      item: { type: 'message', id: 'msg_1', role: 'assistant', status: 'in_progress', content: [] },
    },
    {
      type: 'response.output_text.delta',
      item_id: 'msg_1',
      output_index: 0,
      content_index: 0,
      delta: TEXT,
    },
  ],
}
