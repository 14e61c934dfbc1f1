import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterAll } from 'vitest'
import { type Served, serve } from '../http/setup.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { type ModelServer, startModelServer } from '../support/model-server.ts'

export type DeclaredOutside = {
  readonly model: ModelServer
  readonly effects: EffectServer
  /** What makes a service use the model. */
  readonly env: Readonly<Record<string, string>>
}

/** A model provider and an outside world for the tools, ended after the tests of the file. */
export const declaredOutside = async (): Promise<DeclaredOutside> => {
  const [model, effects] = await Promise.all([startModelServer(), startEffectServer()])
  afterAll(async () => {
    await Promise.all([model.close(), effects.close()])
  })
  return { model, effects, env: { OPENAI_BASE_URL: model.url } }
}

/** A service with them, on a Postgres database of its own. Call it while tests are collected. */
export const serveDeclared = async (
  more: Readonly<Record<string, string>> = {},
): Promise<DeclaredOutside & Served> => {
  const outside = await declaredOutside()
  return { ...outside, ...(await serve('postgres', { env: { ...outside.env, ...more } })) }
}

/** The body of POST /agents: an agent with a tool `act` at this URL. */
export const declaration = (
  name: string,
  url: string,
  tool: Record<string, unknown> = {},
  more: Record<string, unknown> = {},
) => ({
  name,
  instructions: `You are ${name}.`,
  models: ['openai:test-model'],
  tools: [
    {
      name: 'act',
      description: 'Acts outside.',
      input_schema: { type: 'object' },
      url,
      effects: 'none',
      ...tool,
    },
  ],
  ...more,
})

/** What the model was told in turn `turn` of the tools that it called before, in their order. */
export const toldOf = (model: ModelServer, key: string, turn = 1): string[] =>
  (model.requestsOf(key, turn)[0]?.body.messages ?? [])
    .filter(({ role }) => role === 'tool')
    .map(({ content }) => (typeof content === 'string' ? content : JSON.stringify(content)))

export type OddCall = {
  readonly method: string
  readonly path: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
  /** The caller went away before the answer was complete. */
  aborted: boolean
}

type Answer = (response: ServerResponse) => void

/** A server that answers as its paths say, and keeps what it was sent, headers too. */
export const startOddServer = async (
  answers: Readonly<Record<string, Answer>>,
): Promise<{ url: string; calls: OddCall[] }> => {
  const calls: OddCall[] = []
  const server = createServer((request, response) => {
    const { method = '', url = '', headers } = request
    void text(request).then((body) => {
      const call: OddCall = { method, path: url, headers, body, aborted: false }
      response.once('close', () => (call.aborted = !response.writableFinished))
      calls.push(call)
      const answer = answers[url.replace(/\?.*/, '')]
      if (answer) answer(response)
      else response.writeHead(404).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  afterAll(() => server.close().closeAllConnections())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, calls }
}
