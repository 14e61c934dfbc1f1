import {
  type ChaosConfig,
  type ChatCompletionRequest,
  type ChatMessage,
  type Fixture,
  type FixtureResponse,
  LLMock,
} from '@copilotkit/aimock'

/**
 * A model provider on a free port of 127.0.0.1: `@copilotkit/aimock`, which speaks OpenAI chat completions, OpenAI
 * Responses and Anthropic messages at the same address. What it answers is scripted by conversation (the first message
 * of the user, word for word) and turn; a request that nobody scripted is answered with 404.
 */
export const startModelServer = async (): Promise<ModelServer> => {
  const mock = new LLMock({ host: '127.0.0.1', port: 0, journalMaxEntries: 0 })
  const requests: ModelRequest[] = []

  const take = (body: ChatCompletionRequest): ModelRequest => {
    const request = { key: keyOf(body), turn: turnOf(body), body, at: performance.now() }
    requests.push(request)
    return request
  }
  await mock.start()
  const requestsOf: ModelServer['requestsOf'] = (key, turn) =>
    requests.filter((one) => one.key === key && (turn === undefined || one.turn === turn))

  const fixture = (key: string, turn: number, answer: ModelTurn): Fixture => {
    const { chunk = 20, everyMs = 0, cutAfterChunks, chaos } = answer
    return {
      match: { predicate: (body) => keyOf(body) === key && turnOf(body) === turn },
      response: (body) => {
        take(body)
        const nth = requestsOf(key, turn).length
        return responseOf(nth > 1 ? (answer.again ?? answer) : answer)
      },
      chunkSize: chunk,
      latency: everyMs,
      ...(cutAfterChunks === undefined ? {} : { truncateAfterChunks: cutAfterChunks }),
      ...(chaos === undefined ? {} : { chaos }),
    }
  }

  return {
    url: `${mock.url}/v1`,
    requests,
    requestsOf,
    script: (key, turns) => {
      for (const [turn, answer] of turns.entries()) mock.addFixture(fixture(key, turn, answer))
    },
    replace: (key, turn, answer) => void mock.prependFixture(fixture(key, turn, answer)),
    close: () => mock.stop(),
  }
}

export type ModelServer = {
  /** With `/v1` at the end: what `OPENAI_BASE_URL` and `ANTHROPIC_BASE_URL` take. */
  readonly url: string
  /** Scripted requests in order of arrival; live. */
  readonly requests: readonly ModelRequest[]
  requestsOf(key: string, turn?: number): ModelRequest[]
  /** Turn by turn, what the model answers in the conversation that begins with the message `key`. */
  script(key: string, turns: readonly ModelTurn[]): void
  /** From now on this turn is answered so. */
  replace(key: string, turn: number, answer: ModelTurn): void
  close(): Promise<void>
}

export type ModelRequest = {
  readonly key: string
  /** From 0: how often the model has answered in these messages. */
  readonly turn: number
  /** As a chat completion, whatever the shape on the wire was. */
  readonly body: ChatCompletionRequest
  readonly at: number
}

export type ModelAnswer = {
  readonly text?: string
  readonly calls?: readonly { name: string; input: unknown; id?: string }[]
  /** Input and output tokens. Default: 10 and 5. */
  readonly usage?: readonly [number, number]
  /** Instead of an answer. */
  readonly error?: { status: number; code?: string; type?: string; retryAfter?: number }
}

export type ModelTurn = ModelAnswer & {
  /** What every request for this turn but the first is answered instead. */
  readonly again?: ModelAnswer
  /** Characters in a piece of the stream. Default: 20. */
  readonly chunk?: number
  /** Between two pieces. Default: 0. */
  readonly everyMs?: number
  /** Cuts the connection after so many pieces. */
  readonly cutAfterChunks?: number
  /** Faults instead of an answer; such a request is not in `requests`. */
  readonly chaos?: ChaosConfig
}

const responseOf = (answer: ModelAnswer): FixtureResponse => {
  const { text, calls, usage = [10, 5], error } = answer
  if (error) {
    const { status, retryAfter, ...rest } = error
    const shape = { error: { message: 'as the test wants it', ...rest }, status }
    return retryAfter === undefined ? shape : { ...shape, retryAfter }
  }
  // Each shape on the wire reads the names of its own provider.
  const [input_tokens, output_tokens] = usage
  const tokens = {
    prompt_tokens: input_tokens,
    completion_tokens: output_tokens,
    ...{ input_tokens, output_tokens },
  }
  const toolCalls = calls?.map(({ name, input, id }) => ({
    name,
    arguments: typeof input === 'string' ? input : JSON.stringify(input),
    ...(id === undefined ? {} : { id }),
  }))
  if (!toolCalls) return { content: text ?? '', usage: tokens }
  return text === undefined
    ? { toolCalls, usage: tokens }
    : { content: text, toolCalls, usage: tokens }
}

const textOf = ({ content }: ChatMessage): string =>
  typeof content === 'string'
    ? content
    : (content ?? []).map((part) => (typeof part.text === 'string' ? part.text : '')).join('')

const keyOf = ({ messages }: ChatCompletionRequest): string => {
  const first = messages.find((message) => message.role === 'user')
  return first ? textOf(first) : ''
}

/** Some shapes spread one answer over several assistant messages: those beside each other are one. */
const turnOf = ({ messages }: ChatCompletionRequest): number =>
  messages.filter(
    (message, index) => message.role === 'assistant' && messages[index - 1]?.role !== 'assistant',
  ).length
