import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import type { LanguageModel } from 'ai'
import { type ModelChoice, RunError } from '../agents/agent.ts'

/** Environment variables, as far as providers read them. */
export type ProviderEnvironment = Readonly<Record<string, string | undefined>>

/**
 * Finds models by `provider:model`. `openai` and `anthropic` read their keys and base URLs as the AI SDK does; any other
 * name is an OpenAI-compatible server at `<NAME>_BASE_URL`, with `<NAME>_API_KEY` if it wants one. So is `openai` with a
 * base URL of its own: such servers speak chat completions, few speak the Responses API.
 */
export function modelFinder(env: ProviderEnvironment) {
  return (choice: ModelChoice): { model: LanguageModel; id: string } => {
    if (typeof choice !== 'string')
      return { model: choice, id: `${choice.provider}:${choice.modelId}` }
    const colon = choice.indexOf(':')
    const provider = choice.slice(0, colon)
    const model = choice.slice(colon + 1)
    return { model: modelOf(env, provider, model), id: choice }
  }
}

function modelOf(env: ProviderEnvironment, provider: string, model: string): LanguageModel {
  const prefix = provider.toUpperCase().replaceAll('-', '_')
  const key = env[`${prefix}_API_KEY`]
  const baseURL = env[`${prefix}_BASE_URL`]
  if (provider === 'anthropic')
    return createAnthropic({
      apiKey: needed(key, 'ANTHROPIC_API_KEY'),
      ...(baseURL ? { baseURL } : {}),
    })(model)
  if (baseURL)
    return createOpenAICompatible({
      name: provider,
      baseURL,
      ...(key ? { apiKey: key } : {}),
      includeUsage: true,
    }).chatModel(model)
  if (provider === 'openai') return createOpenAI({ apiKey: needed(key, 'OPENAI_API_KEY') })(model)
  throw new RunError('auth_error', `there is no provider ${provider}: set ${prefix}_BASE_URL`)
}

function needed(key: string | undefined, name: string): string {
  if (key) return key
  throw new RunError('auth_error', `${name} is not set`)
}
