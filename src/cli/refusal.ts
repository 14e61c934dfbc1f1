/** What went wrong, in words for people or as a document for programs. */
import type { RunlaneError } from '../client/index.ts'
import { TOKEN_FILE } from './connection.ts'
import { printable } from './text.ts'

export const documentOf = ({ status, code, detail, errors, requestId, problem }: RunlaneError) => ({
  ...problem,
  ...{ status: status ?? null, code, detail, errors, request_id: requestId ?? null },
})

/** @param tokenOf where the token came from; undefined: none was sent */
export function wordsOf(error: RunlaneError, tokenOf: string | undefined): string {
  const { status, code, detail, errors, requestId } = error
  return [
    `runlane: ${printable(detail)} (${[code, status].filter(Boolean).join(', ')})`,
    ...errors.map(({ path, message }) => `  ${printable(path || 'body')}: ${printable(message)}`),
    ...hintsOf(error).map((hint) => `  ${printable(hint)}`),
    ...(status === 401 ? tokenHints(tokenOf).map((hint) => `  ${hint}`) : []),
    ...(requestId === undefined ? [] : [`  request ${printable(requestId)}`]),
  ].join('\n')
}

/** Members of problem documents that say how to go on. */
function hintsOf({ code, problem }: RunlaneError): string[] {
  const { resume_blocker, run_ids, run_id, questions } = problem
  if (code === 'unknown_tool_call') {
    const calls = rowsOf(problem['unknown_calls'])
    const settled = calls.map(({ tool_call_id }) => `--resolve ${tool_call_id}=<outcome>`)
    return [
      ...calls.map(({ tool_call_id, tool }) => `${tool_call_id}, a call of ${tool}`),
      `runlane run resume ${String(run_id)} ${settled.join(' ')}`,
      '<outcome>: succeeded:{"its": "result"}, failed, or retry, which makes the call again',
    ]
  }
  return [
    ...(typeof resume_blocker === 'string' ? [`in its way: ${resume_blocker}`] : []),
    ...(Array.isArray(run_ids) ? run_ids.map(String) : []),
    ...rowsOf(questions).map(({ token_id, prompt }) => `--question ${token_id}: ${prompt}`),
  ]
}

const rowsOf = (value: unknown): Readonly<Record<string, string>>[] =>
  Array.isArray(value) ? (value as Record<string, string>[]) : []

/** A service that was started in another folder keeps its token there. */
const tokenHints = (tokenOf: string | undefined): string[] => [
  tokenOf === undefined
    ? 'no token was sent: give one by --token-file or RUNLANE_TOKEN'
    : `the token of ${printable(tokenOf)} is none of this service: give another by --token-file or RUNLANE_TOKEN`,
  `a service keeps the one that it made for itself in ${TOKEN_FILE} of the folder where it was started`,
]
