import type { Context } from 'hono'
import { accepts } from 'hono/accepts'
import { html } from 'hono/html'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { Json } from '../json.ts'
import { Refusal } from '../errors.ts'
import { resumeBlocker } from '../runtime/run/resume.ts'
import { isTerminal } from '../store/rows.ts'
import { findJournal, findRun, type RunView } from '../store/runs.ts'
import { type Identity, reaches } from './access/identity.ts'
import { STATUS } from './problem.ts'
import type { Service } from './service.ts'

const LABELS: Record<string, string> = {
  failed: 'Run failed',
  timed_out: 'Run timed out',
  cancelled: 'Run cancelled',
}

/** How often a panel asks while its run goes on, and where none does: a resume or a new run may come. In milliseconds. */
const POLL_MS = 1_500
const SLOW_POLL_MS = 10_000

/** What a chat surface shows of a run: where it is, what can be done about it, and after a bad end what is needed to take over. */
export async function statusOf({ reads }: Service, run: RunView) {
  const ended = isTerminal(run.status)
  const resume_available = ended && resumeBlocker(run) === null
  const label = LABELS[run.status]
  const content =
    label === undefined ? {} : ((await findJournal(reads, journalOf(run)))?.content ?? {})
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

type Status = Awaited<ReturnType<typeof statusOf>>

/** A child run writes its own journal, not that of the conversation. */
const journalOf = ({ parent_run_id, run_id, conversation_id }: RunView): string =>
  parent_run_id === null ? conversation_id : run_id

/** A journal field as text: agents may keep lists there. */
function lineOf(value: Json | undefined): string | null {
  if (value === undefined || value === null || value === '') return null
  if (Array.isArray(value)) return value.map((one) => lineOf(one) ?? '').join('\n')
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

/** Asked for as HTML by a browser, or by htmx whatever it accepts. */
export const wantsHtml = (c: Context): boolean =>
  c.req.header('hx-request') === 'true' ||
  accepts(c, {
    header: 'Accept',
    supports: ['application/json', 'text/html'],
    default: 'application/json',
  }) === 'text/html'

/** A service may act on the runs that it created, operators on all. */
const mayAct = ({ role, name }: Identity, { created_by }: RunView): boolean =>
  reaches(role, 'service') && (role !== 'service' || created_by === name)

interface Seen {
  c: Context
  identity: Identity
  run: RunView
  headers?: Record<string, string>
}

/** The run's panel, as this caller may use it. */
export async function panelAnswer(
  service: Service,
  { c, identity, run, headers = {} }: Seen,
  status: ContentfulStatusCode = 200,
  problem: string | null = null,
): Promise<Response> {
  const shown = await statusOf(service, run)
  const may = mayAct(identity, run)
  const can_cancel = may && shown.can_cancel
  const can_resume = may && shown.resume_available
  return c.html(
    panelOf({ ...shown, can_cancel, can_resume, attempt: run.attempt }, problem),
    status,
    headers,
  )
}

/** The panel of a conversation that has no run yet. */
export const emptyPanel = (c: Context, conversationId: string): Response | Promise<Response> =>
  c.html(
    html`<section
      class="agent-status"
      aria-label="Status"
      data-status="none"
      ${polling(pathOf(conversationId), POLL_MS)}
    >
      <p role="status">No run yet</p>
    </section>`,
  )

const pathOf = (conversationId: string): string =>
  `/conversations/${encodeURIComponent(conversationId)}`

/** Does what a button of the panel stands for; the panel is the answer to a refusal as well, and says why. */
export async function panelAfter(
  service: Service,
  seen: Seen,
  act: () => Promise<unknown>,
): Promise<Response> {
  let status: 202 | 409 = 202
  let problem: string | null = null
  try {
    await act()
  } catch (error) {
    if (!(error instanceof Refusal) || STATUS[error.code] !== 409) throw error
    status = 409
    problem = error.message
  }
  const run = (await findRun(service.reads, seen.run.run_id)) ?? seen.run
  return panelAnswer(service, { ...seen, run }, status, problem)
}

/**
 * Lets an element replace itself by what the service answers then.
 *
 * htmx 1 and 2 inherit a target from the page around the panel: hence the target of its own. htmx 4.0 reads `every 1.5s` as
 * every millisecond (the dot makes a path of it); whole numbers are read alike by all.
 */
const polling = (base: string, everyMs: number) =>
  html`hx-get="${base}/agent-status" hx-trigger="every ${everyMs}ms" hx-target="this"
  hx-swap="outerHTML"`

/**
 * The panel; agents' text is text, never markup. Every htmx keeps the focus over a swap only on an element with an id: hence
 * the ids of the buttons. What somebody reads after the end is preserved as it is: open stays open.
 */
function panelOf(
  status: Status & { can_resume: boolean; attempt: number },
  problem: string | null,
) {
  const { conversation_id, run_id, agent, detail, phase, saying, stuck_reason, handoff } = status
  const base = pathOf(conversation_id)
  const poll = polling(base, isTerminal(status.status) ? SLOW_POLL_MS : POLL_MS)
  const button = (name: string, path: string, text: string) =>
    html`<button
      type="button"
      id="${name}-${run_id}"
      hx-post="${path}"
      hx-target="closest .agent-status"
      hx-swap="outerHTML"
    >
      ${text}
    </button>`
  const doing = [phase, saying].filter(Boolean).join(': ')
  return html`<section
    class="agent-status"
    aria-label="Status of ${agent}"
    data-run="${run_id}"
    data-status="${status.status}"
    ${poll}
  >
    <p role="status">
      <strong>${handoff?.label ?? status.status.replaceAll('_', ' ')}</strong> ${textOf(detail)}
      ${stuck_reason === null ? '' : html`<em>stuck: ${textOf(stuck_reason)}</em>`}
    </p>
    ${problem === null ? '' : html`<p role="alert">${textOf(problem)}</p>`}
    ${doing === '' ? '' : html`<p class="agent-doing">${textOf(doing)}</p>`}
    ${handoff === null ? '' : handoffOf(handoff, `known-${run_id}-${status.attempt}`)}
    ${status.can_cancel ? button('cancel', `${base}/agent-runs/cancel`, 'Cancel') : ''}
    ${
      status.can_resume
        ? button('resume', `/agent-runs/${run_id}/resume`, 'Resume from last checkpoint')
        : ''
    }
  </section>`
}

function handoffOf(
  { error_message, last_known_state, handoff_next_action }: NonNullable<Status['handoff']>,
  id: string,
) {
  const known = Object.entries(last_known_state).filter(([, text]) => text !== null)
  return html`${error_message === null ? '' : html`<p class="agent-error">${textOf(error_message)}</p>`}
  ${
    handoff_next_action === null
      ? ''
      : html`<p><strong>Next: ${textOf(handoff_next_action)}</strong></p>`
  }
  ${
    known.length === 0
      ? ''
      : html`<details id="${id}" hx-preserve>
          <summary>Last known state</summary>
          <dl>
            ${known.map(
              ([name, text]) =>
                html`<dt>${name.replaceAll('_', ' ')}</dt>
                  <dd>${textOf(text)}</dd>`,
            )}
          </dl>
        </details>`
  }`
}

/** Longest stretch without a space that no line has to hold whole, in characters. */
const UNBROKEN = /\S{40}[\p{M}\u200D]*(?=\S)|\n/gu

/**
 * What an agent wrote, set apart: its direction and its overrides of it end where it ends (`bdi`), its lines are lines,
 * and a line without spaces may break, however the page around it is styled.
 */
function textOf(text: string | null) {
  if (text === null || text === '') return ''
  const parts: (string | ReturnType<typeof html>)[] = []
  let from = 0
  for (const { 0: found, index } of text.matchAll(UNBROKEN)) {
    const to = found === '\n' ? index : index + found.length
    parts.push(text.slice(from, to), found === '\n' ? html`<br />` : html`<wbr />`)
    from = index + found.length
  }
  parts.push(text.slice(from))
  return html`<bdi>${parts}</bdi>`
}
