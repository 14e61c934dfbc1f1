import {
  type FinishReason,
  jsonSchema,
  type LanguageModel,
  type ModelMessage,
  streamText,
  type ToolSet,
} from 'ai'
import { SessionClosed } from '../errors.ts'
import type { Json } from '../json.ts'
import { failureOf } from '../providers/failure.ts'
import {
  type Agent,
  type ModelChoice,
  type ModelReply,
  type ModelRequest,
  type ModelToolCall,
  RunError,
  type ToolOffer,
} from './agent.ts'
import type { CallDesk, Opened } from './call-desk.ts'
import { type DeltaPace, MessageStream, QuietText } from './stream.ts'
import type { Toolbox } from './toolbox.ts'
import { checkedResult, cleanText } from './values.ts'

/** @throws RunError when there is no such provider or its key is missing */
export type ModelFinder = (choice: ModelChoice) => { model: LanguageModel; id: string }

export interface ModelCall {
  agent: Agent
  request: ModelRequest
  opened: Opened
  desk: CallDesk
  signal: AbortSignal
  toolbox: Toolbox
  findModel: ModelFinder
  pace: DeltaPace
}

/** Tries of one call on the same model, with the back-off of the AI SDK; `Retry-After` is honoured. */
const RETRIES = 2

/**
 * Makes a model call: streams its text, records its answer.
 * @throws RunError with the kind of failure as its code
 */
export async function callModel(made: ModelCall): Promise<ModelReply> {
  const { desk, opened, agent, findModel } = made
  const { call, recorded } = opened
  const startedAt = performance.now()
  const stream = made.request.quiet
    ? new QuietText()
    : new MessageStream(desk, call, recorded, made.pace)
  try {
    const [choice] = agent.models ?? []
    if (choice === undefined)
      throw new RunError('no_model', `the agent ${agent.name} has no models`)
    const { model, id } = findModel(choice)
    const tools = await offered(made)
    desk.port.send({
      type: 'progress.reported',
      phase: 'thinking',
      model: id,
      call: desk.started(call, null, stream.out),
    })
    await desk.mayAct()
    const reply = await ask(made, model, id, tools, stream)
    const { value, size } = checkedResult(reply)
    desk.port.send({ type: 'call.recorded', call: desk.succeeded(call, value, size, startedAt) })
    return value as unknown as ModelReply
  } catch (error) {
    if (error instanceof SessionClosed || desk.control.ending) throw error
    const { kind, message } = failureOf(error)
    desk.port.send({
      type: 'progress.reported',
      call: desk.started(call, null, stream.out),
      failure: { kind, message },
    })
    desk.keepFailure(desk.failed(call, message, startedAt, { code: kind }))
    throw new RunError(kind, message)
  }
}

async function ask(
  { agent, request, desk, signal }: ModelCall,
  model: LanguageModel,
  id: string,
  tools: ToolOffer[],
  stream: MessageStream | QuietText,
): Promise<ModelReply> {
  const instructions = request.instructions ?? agent.instructions
  const result = streamText({
    model,
    ...(instructions === undefined ? {} : { instructions }),
    messages: request.messages,
    allowSystemInMessages: true,
    tools: toolSetOf(tools),
    maxRetries: RETRIES,
    abortSignal: signal,
    // Told through the stream; by default the SDK writes it to the console as well.
    onError: () => {},
  })
  const calls: ModelToolCall[] = []
  for await (const part of result.stream) {
    if (part.type === 'error') throw part.error
    if (part.type === 'abort') desk.boundary()
    if (part.type === 'text-delta') stream.push(part.text)
    desk.moved()
    if (part.type === 'tool-call') calls.push(toolCallOf(part))
  }
  desk.boundary()
  await stream.end()
  const finish_reason = await result.finishReason
  if (brokeOff(finish_reason, await result.rawFinishReason))
    throw new RunError('network', 'the answer of the model broke off before its end')
  const usage = await result.usage
  const messages = (await result.responseMessages).filter((one) => one.role === 'assistant')
  const reply = withOwnIds(request.messages, calls, cleanText(messages) as ModelMessage[])
  return {
    text: stream.text,
    ...reply,
    finish_reason,
    model: id,
    usage: { input_tokens: usage.inputTokens ?? 0, output_tokens: usage.outputTokens ?? 0 },
    ...(request.quiet ? { quiet: true } : {}),
  }
}

/** The connection was closed in good order before the model said why it ended: half an answer is none. */
const brokeOff = (reason: FinishReason, raw: string | undefined): boolean =>
  reason === 'interrupted' || (reason === 'other' && raw === undefined)

/** The tools that the model is told of; asked for only when a call is really made. */
async function offered({ request, toolbox, signal }: ModelCall): Promise<ToolOffer[]> {
  const wanted = request.tools ?? []
  const own = wanted.filter((tool) => typeof tool !== 'string')
  const names = wanted.filter((tool) => typeof tool === 'string')
  if (names.length === 0) return own
  const all = await toolbox.offers(signal)
  for (const name of names)
    if (name !== '*' && !all.some((tool) => tool.name === name))
      throw new RunError('unknown_tool', `the agent has no tool ${name} to offer`)
  return [...all.filter((tool) => names.includes('*') || names.includes(tool.name)), ...own]
}

/** Without `execute`: the SDK reports what the model asks for, and calling it is the agent's decision. */
const toolSetOf = (tools: ToolOffer[]): ToolSet =>
  Object.fromEntries(
    tools.map(({ name, description, input_schema }) => [
      name,
      { description, inputSchema: jsonSchema(input_schema as never) },
    ]),
  )

function toolCallOf(part: {
  toolCallId: string
  toolName: string
  input: unknown
  invalid?: boolean | undefined
  error?: unknown
}): ModelToolCall {
  const call = {
    id: part.toolCallId,
    provider_id: part.toolCallId,
    name: part.toolName,
    input: cleanText(part.input ?? null) as Json,
  }
  // A name that was not offered is for the loop to answer; what is not JSON cannot be used at all.
  if (part.invalid !== true || typeof part.input !== 'string') return call
  return { ...call, input: null, invalid: 'the arguments are not valid JSON' }
}

/**
 * Providers pair a result with its call by id, and some servers use `call_0` in every answer. An id that was used before
 * is replaced in the answer, consistently, before anybody sees it.
 */
function withOwnIds(
  before: ModelMessage[],
  calls: ModelToolCall[],
  messages: ModelMessage[],
): { tool_calls: ModelToolCall[]; messages: ModelMessage[] } {
  const used = new Set(before.flatMap(toolCallIds))
  const ids: string[] = []
  const tool_calls = calls.map((call) => {
    let id = call.id
    for (let n = 2; used.has(id); n += 1) id = `${call.provider_id}-${n}`
    used.add(id)
    ids.push(id)
    return { ...call, id }
  })
  let nth = 0
  const renamed = messages.map((message) => {
    if (message.role !== 'assistant' || typeof message.content === 'string') return message
    const content = message.content.map((part) => {
      if (part.type !== 'tool-call') return part
      const id = ids[nth] ?? part.toolCallId
      nth += 1
      if (id === part.toolCallId) return usable(part)
      // The provider knows this item under the id that is replaced.
      const { providerOptions: _options, ...plain } = part
      return usable({ ...plain, toolCallId: id })
    })
    return { ...message, content }
  })
  return { tool_calls, messages: renamed }
}

/** Arguments that are no object (the model wrote none, or not JSON) would be refused when they are sent back. */
function usable<P extends { input: unknown }>(part: P): P {
  return typeof part.input === 'object' && part.input !== null ? part : { ...part, input: {} }
}

const toolCallIds = (message: ModelMessage): string[] =>
  typeof message.content === 'string'
    ? []
    : message.content.flatMap((part) => (part.type === 'tool-call' ? [part.toolCallId] : []))
