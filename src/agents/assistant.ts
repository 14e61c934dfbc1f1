import { type AgentDefinition, builtInAgent } from './define.ts'
import { type AgentCard, cardOf } from './source.ts'

/** Models of the `assistant` when nobody names others. */
const DEFAULT_MODELS = { openai: 'gpt-5.2', anthropic: 'claude-opus-4-7' }

/** The agent that is there as soon as a provider is: a conversation partner without tools of its own. */
export const assistantAgent = (models: string[]): AgentDefinition =>
  builtInAgent({
    name: 'assistant',
    description: 'Answers in conversation; for a first run and for checks of a provider.',
    instructions: 'You are a helpful assistant. Answer briefly and say when you do not know.',
    models,
  })

/** Its card, or undefined when no provider is configured: its models are those whose key or base URL is set. */
export function assistantCard(
  env: Readonly<Record<string, string | undefined>>,
): AgentCard | undefined {
  const models: string[] = []
  if (env['OPENAI_API_KEY'] || env['OPENAI_BASE_URL'])
    models.push(`openai:${env['OPENAI_MODEL'] || DEFAULT_MODELS.openai}`)
  if (env['ANTHROPIC_API_KEY'])
    models.push(`anthropic:${env['ANTHROPIC_MODEL'] || DEFAULT_MODELS.anthropic}`)
  if (models.length === 0) return undefined
  return cardOf(assistantAgent(models), 'built_in', { from: 'assistant', models })
}
