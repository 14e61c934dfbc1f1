import type { Run } from '../client/index.ts'

/** The command that answers what the run asks. */
function answerTo({ run_id, detail }: Run): string {
  const command = `runlane run respond ${run_id}`
  if (detail === 'crash_loop') return `${command} --outcome retry`
  if (detail === 'signal') return `runlane run signal ${run_id} <name> [json]`
  return detail === 'unknown_tool_call'
    ? `${command} --outcome succeeded|failed|retry`
    : `${command} --answer <json>`
}

/** Which command moves a run on, where it does not go on or begin by itself. */
export function nextStep(run: Run): string | null {
  if (run.status === 'waiting_on_human') return answerTo(run)
  return run.metadata['resume_available'] === true ? `runlane run resume ${run.run_id}` : null
}
