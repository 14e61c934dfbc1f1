import {
  APICallError,
  InvalidResponseDataError,
  LoadAPIKeyError,
  NoOutputGeneratedError,
  RetryError,
} from 'ai'
import { messageOf } from '../errors.ts'

/** What went wrong with a model call, as far as it can be told from its structure: never from prose. */
export type FailureKind =
  | 'rate_limit'
  | 'overloaded'
  | 'server_error'
  | 'timeout'
  | 'network'
  | 'auth_error'
  | 'billing'
  | 'model_not_found'
  | 'context_length'
  | 'bad_request'
  | 'content_filter'
  | 'empty_response'
  | 'unknown'

export interface Failure {
  kind: string
  message: string
}

/** The kind and one line for people; an error that names its code itself (`RunError`) keeps it. */
export function failureOf(error: unknown): Failure {
  if (RetryError.isInstance(error)) return failureOf(error.lastError)
  if (APICallError.isInstance(error)) {
    const where = isRefused(error) ? `status ${error.statusCode}` : 'no whole answer'
    return {
      kind: kindOf(error),
      message: `the model provider failed (${where}): ${error.message}`,
    }
  }
  if (InvalidResponseDataError.isInstance(error))
    return { kind: 'network', message: `the model's answer broke off: ${error.message}` }
  if (LoadAPIKeyError.isInstance(error)) return { kind: 'auth_error', message: error.message }
  if (NoOutputGeneratedError.isInstance(error))
    return { kind: 'empty_response', message: 'the model gave no output' }
  const code = codeOf(error)
  if (code !== undefined && /^[a-z_]{1,64}$/.test(code))
    return { kind: code, message: messageOf(error) }
  return { kind: 'unknown', message: messageOf(error) || 'the model call failed' }
}

function kindOf(error: APICallError): FailureKind {
  const { statusCode } = error
  const code = providerCode(error.data)
  if (code === 'context_length_exceeded') return 'context_length'
  if (code === 'content_filter') return 'content_filter'
  if (code === 'insufficient_quota') return 'billing'
  if (code === 'overloaded_error') return 'overloaded'
  if (statusCode === undefined || !isRefused(error)) return 'network'
  return BY_STATUS[statusCode] ?? (statusCode >= 500 ? 'server_error' : 'bad_request')
}

/** Else it was never answered, or the answer that had begun well broke off. */
const isRefused = ({ statusCode }: APICallError): boolean =>
  statusCode !== undefined && statusCode >= 400

const BY_STATUS: Record<number, FailureKind> = {
  401: 'auth_error',
  402: 'billing',
  403: 'auth_error',
  404: 'model_not_found',
  408: 'timeout',
  413: 'context_length',
  429: 'rate_limit',
  503: 'overloaded',
  504: 'timeout',
  529: 'overloaded',
}

/** `error.code` (OpenAI) or `error.type` (Anthropic) of the provider's answer. */
function providerCode(data: unknown): string | undefined {
  const error = (data as { error?: { code?: unknown; type?: unknown } } | undefined)?.error
  const code = error?.code ?? error?.type
  return typeof code === 'string' ? code : undefined
}

function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' ? code : undefined
}
