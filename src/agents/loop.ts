import type { ModelMessage } from 'ai'
import type { FieldError } from '../errors.ts'
import { messageOf, SessionClosed } from '../errors.ts'
import type { Json } from '../json.ts'
import {
  type AgentContext,
  type ModelReply,
  type ModelToolCall,
  RunError,
  ToolError,
  type ToolOffer,
} from './agent.ts'
import { delegateByModel, delegateTool } from './delegate-tool.ts'

const JOURNAL_FIELDS = [
  'objective',
  'current_state',
  'blockers',
  'next_action',
  'findings',
  'handoff_next_action',
] as const

const UPDATE_JOURNAL: ToolOffer = {
  name: 'update_journal',
  description:
    'Keeps the working journal of this conversation: what you want to reach, where you are, what is in the way, what comes next. Humans read it when they take over. Give the fields that changed.',
  input_schema: {
    type: 'object',
    properties: Object.fromEntries(JOURNAL_FIELDS.map((field) => [field, { type: 'string' }])),
    additionalProperties: false,
    minProperties: 1,
  },
}

/** Names of tools that the loop offers to the model by itself; an agent's own tools are named otherwise. */
export const LOOP_TOOLS: readonly string[] = ['update_journal', 'delegate', 'ask_human']

/**
 * The loop of an agent without code of its own: model call, the batch of tools that it asks for, model call, …, until it
 * answers in words. Written on the public `ctx`. Output: `{ text }`.
 *
 * A tool that fails, that does not exist or whose input does not fit is no end: the model is told.
 */
export function builtInLoop({
  max_turns,
  delegates = [],
}: {
  max_turns: number
  /** Agents that the model may give work to. */
  delegates?: readonly string[]
}) {
  const offers = [UPDATE_JOURNAL, ...(delegates.length > 0 ? [delegateTool(delegates)] : [])]
  return async (ctx: AgentContext): Promise<{ text: string }> => {
    const messages = messagesOf(ctx.input)
    for (let turn = 0; turn < max_turns; turn += 1) {
      const reply = await ctx.model({ messages, tools: ['*', ...offers] })
      messages.push(...reply.messages)
      if (reply.tool_calls.length === 0) return answerOf(reply)
      const results = await Promise.all(
        reply.tool_calls.map((call) => perform(ctx, call, delegates)),
      )
      messages.push({ role: 'tool', content: results })
    }
    throw new RunError(
      'max_turns_exceeded',
      `the model was called ${max_turns} times without a final answer`,
    )
  }
}

type ToolMessage = Extract<ModelMessage, { role: 'tool' }>
type ToolResult = Extract<ToolMessage['content'][number], { type: 'tool-result' }>

async function perform(
  ctx: AgentContext,
  call: ModelToolCall,
  delegates: readonly string[],
): Promise<ToolResult> {
  const result = (output: ToolResult['output']): ToolResult => ({
    type: 'tool-result',
    toolCallId: call.id,
    toolName: call.name,
    output,
  })
  if (call.invalid !== undefined) return result({ type: 'error-text', value: call.invalid })
  try {
    if (call.name === UPDATE_JOURNAL.name) return result(await writeJournal(ctx, call.input))
    if (call.name === 'delegate' && delegates.length > 0)
      return result(await delegateByModel(ctx, delegates, call.input))
    const value = await ctx.tool(call.name, call.input, { providerCallId: call.provider_id })
    return result({ type: 'json', value })
  } catch (error) {
    const isTold = error instanceof ToolError || codeOf(error) === 'unknown_tool'
    if (!isTold || error instanceof SessionClosed) throw error
    return result({ type: 'error-text', value: messageOf(error) })
  }
}

async function writeJournal(ctx: AgentContext, input: Json): Promise<ToolResult['output']> {
  const given = typeof input === 'object' && input !== null && !Array.isArray(input) ? input : {}
  const strange = Object.keys(given).filter((key) => !JOURNAL_FIELDS.includes(key as never))
  if (strange.length > 0 || Object.keys(given).length === 0)
    return { type: 'error-text', value: `takes ${JOURNAL_FIELDS.join(', ')}` }
  await ctx.journal(given)
  return { type: 'json', value: { updated: Object.keys(given) } }
}

function answerOf(reply: ModelReply): { text: string } {
  if (reply.finish_reason === 'content-filter')
    throw new RunError('content_filter', 'the provider withheld the answer (content filter)')
  if (reply.text === '')
    throw new RunError('empty_response', 'the model answered with neither words nor a tool call')
  return { text: reply.text }
}

/** What does not fit in the input of an agent with the built-in loop. */
export function messageProblems(input: unknown): FieldError[] {
  const wanted = 'must be { "message": "text" } or { "messages": [{ "role", "content" }] }'
  if (typeof input !== 'object' || input === null || Array.isArray(input))
    return [{ path: 'input', message: wanted }]
  const { message, messages, ...rest } = input as Record<string, unknown>
  const unknown = Object.keys(rest).map((key) => ({
    path: `input.${key}`,
    message: 'is an unknown field',
  }))
  if (unknown.length > 0) return unknown
  if ((message === undefined) === (messages === undefined))
    return [{ path: 'input', message: wanted }]
  if (messages === undefined) return textProblems(message, 'input.message')
  if (!Array.isArray(messages) || messages.length === 0 || messages.length > MESSAGES_MAX)
    return [{ path: 'input.messages', message: `must be 1 to ${MESSAGES_MAX} messages` }]
  return messages.flatMap((one, index) => oneProblems(one, `input.messages[${index}]`)).slice(0, 20)
}

const MESSAGES_MAX = 1000
const ROLES = ['user', 'assistant', 'system']

function oneProblems(one: unknown, path: string): FieldError[] {
  if (typeof one !== 'object' || one === null) return [{ path, message: 'must be an object' }]
  const { role, content, ...rest } = one as Record<string, unknown>
  const problems = Object.keys(rest).map((key) => ({
    path: `${path}.${key}`,
    message: 'is an unknown field',
  }))
  if (!ROLES.includes(role as string))
    problems.push({ path: `${path}.role`, message: `must be one of ${ROLES.join(', ')}` })
  return [...problems, ...textProblems(content, `${path}.content`)]
}

const textProblems = (text: unknown, path: string): FieldError[] =>
  typeof text === 'string' && text !== '' ? [] : [{ path, message: 'must be text' }]

/** An input that was checked when the run was posted. */
function messagesOf(input: Json): ModelMessage[] {
  const [problem] = messageProblems(input)
  if (problem) throw new RunError('invalid_input', `${problem.path} ${problem.message}`)
  const { message, messages } = input as { message?: string; messages?: ModelMessage[] }
  return message === undefined ? [...(messages ?? [])] : [{ role: 'user', content: message }]
}

function codeOf(error: unknown): unknown {
  return error instanceof RunError ? error.code : undefined
}
