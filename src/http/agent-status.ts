import type { Context } from 'hono'
import { html } from 'hono/html'
import type { Json } from '../json.ts'
import { resumeBlocker } from '../runtime/resume.ts'
import { isTerminal } from '../store/rows.ts'
import { findJournal, type RunView } from '../store/runs.ts'
import type { Service } from './service.ts'

const LABELS: Record<string, string> = {
  failed: 'Run failed',
  timed_out: 'Run timed out',
  cancelled: 'Run cancelled',
}

/** What a chat surface shows of a run: where it is, what a person can do, and after a bad end what they need to take over. */
export async function statusOf({ reads }: Service, run: RunView) {
  const ended = isTerminal(run.status)
  const resume_available = ended && resumeBlocker(run) === null
  const label = LABELS[run.status]
  const content =
    label === undefined ? {} : ((await findJournal(reads, run.conversation_id))?.content ?? {})
  const line = (field: string): string | null => lineOf(content[field])
  return {
    conversation_id: run.conversation_id,
    run_id: run.run_id,
    agent: run.agent,
    status: run.status,
    detail: run.detail,
    stuck_reason: run.stuck_reason,
    phase: run.phase,
    saying: run.saying,
    since: run.status_since,
    can_cancel: !ended && run.status !== 'cancel_requested',
    resume_available,
    handoff:
      label === undefined
        ? null
        : {
            label,
            error_message: run.error_message,
            last_known_state: {
              objective: line('objective'),
              current_state: line('current_state'),
              blockers: line('blockers'),
              next_action: line('next_action'),
              findings: line('findings'),
            },
            handoff_next_action: line('handoff_next_action'),
            resume_available,
          },
  }
}

export type Status = Awaited<ReturnType<typeof statusOf>>

/** A journal field as text: agents may keep lists there. */
function lineOf(value: Json | undefined): string | null {
  if (value === undefined || value === null || value === '') return null
  if (Array.isArray(value)) return value.map((one) => lineOf(one) ?? '').join('\n')
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** Asked for as HTML by a browser, or by htmx whatever it accepts. */
export const wantsHtml = (c: Context): boolean =>
  c.req.header('hx-request') === 'true' || /^\s*text\/html/.test(c.req.header('accept') ?? '')

/** The panel: polls itself while the run goes on; agents' text is text, never markup. */
export function panelOf(status: Status) {
  const { conversation_id, run_id, detail, phase, saying, stuck_reason, can_cancel, handoff } =
    status
  const base = `/conversations/${encodeURIComponent(conversation_id)}`
  const poll = isTerminal(status.status)
    ? ''
    : html`hx-get="${base}/agent-status" hx-trigger="every 1.5s" hx-swap="outerHTML"`
  const button = (path: string, text: string) =>
    html`<button
      type="button"
      hx-post="${path}"
      hx-target="closest .agent-status"
      hx-swap="outerHTML"
    >
      ${text}
    </button>`
  return html`<section class="agent-status" data-status="${status.status}" ${poll}>
    <p role="status">
      <strong>${handoff?.label ?? status.status}</strong> ${detail ?? ''}
      ${stuck_reason === null ? '' : html`<em>stuck: ${stuck_reason}</em>`}
    </p>
    ${phase === null && saying === null ? '' : html`<p>${[phase, saying].filter(Boolean).join(': ')}</p>`}
    ${handoff === null ? '' : handoffOf(handoff)}
    ${can_cancel ? button(`${base}/agent-runs/cancel`, 'Cancel') : ''}
    ${status.resume_available ? button(`/agent-runs/${run_id}/resume`, 'Resume from last checkpoint') : ''}
  </section>`
}

function handoffOf({
  error_message,
  last_known_state,
  handoff_next_action,
}: NonNullable<Status['handoff']>) {
  const known = Object.entries(last_known_state).filter(([, text]) => text !== null)
  return html`${error_message === null ? '' : html`<p>${error_message}</p>`}
  ${handoff_next_action === null ? '' : html`<p><strong>Next: ${handoff_next_action}</strong></p>`}
  ${
    known.length === 0
      ? ''
      : html`<details>
          <summary>Last known state</summary>
          <dl>
            ${known.map(
              ([name, text]) =>
                html`<dt>${name.replaceAll('_', ' ')}</dt>
                  <dd>${text}</dd>`,
            )}
          </dl>
        </details>`
  }`
}
