import { Refusal } from '../../errors.ts'
import type { Json } from '../../json.ts'
import type { Resolution } from '../run/messages.ts'

/** What a human has answered to a question of the runtime. @throws Refusal validation_error */
export function checkedResolution(answer: Json, kind: string): Resolution {
  const problem = resolutionProblem(answer, kind)
  if (problem === undefined) return answer as unknown as Resolution
  throw new Refusal(
    'validation_error',
    `the answer does not fit: ${problem.path} ${problem.message}`,
    { errors: [problem] },
  )
}

function resolutionProblem(
  answer: Json,
  kind: string,
): { path: string; message: string } | undefined {
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) {
    return { path: 'answer', message: 'must be an object with "outcome"' }
  }
  const outcomes = kind === 'crash_loop' ? ['retry'] : ['succeeded', 'failed', 'retry']
  if (typeof answer['outcome'] !== 'string' || !outcomes.includes(answer['outcome'])) {
    return {
      path: 'answer.outcome',
      message: `must be ${outcomes.map((one) => `"${one}"`).join(', ')}`,
    }
  }
  const strange = Object.keys(answer).find((field) => field !== 'outcome' && field !== 'result')
  return strange === undefined ? undefined : { path: `answer.${strange}`, message: 'is unknown' }
}
