import type { Run, RunEvent, RunSummary } from '../client/index.ts'
import { type Diagnosis, RunlaneError } from '../client/index.ts'
import { EXIT } from './io.ts'
import { nextStep } from './next.ts'
import type { Context } from './context.ts'
import { eventLine } from './show.ts'
import { fields, indented, printable, table } from './text.ts'

/** Of the run's last events so many are shown. */
const SHOWN_EVENTS = 8
/** Before its last status change: what was asked then, and by what it came there. */
const EVENTS_BEFORE = 50

/** What a run waits for: as the service diagnoses it, and where it cannot yet, from what it says about the run. */
export async function why(context: Context, [runId = '']: readonly string[]): Promise<number> {
  const { client, io, print } = context
  const signal = io.ended
  const run = await client.getRun(runId, { signal })
  const [diagnosis, chart] = await Promise.all([
    diagnosisOf(context, run.run_id),
    client.getStatechart(runId, { signal }),
  ])
  const lastChange = chart.history.at(-1)?.sequence ?? 0
  const events = await lastEvents(context, runId, Math.max(0, lastChange - EVENTS_BEFORE))
  const questions = openQuestions(run, events)
  const holder = await laneHolder(context, run)
  const found = { since: chart.since, can: chart.can, questions, lane_holder: holder }
  const shown = events.filter(({ event_type }) => event_type !== 'message_delta')
  const recent = shown.slice(-SHOWN_EVENTS)
  await print({ run, diagnosis, ...found, recent_events: recent }, () =>
    [
      diagnosis ? diagnosisText(diagnosis) : '',
      fields([
        ['run', run.run_id],
        ['status', run.status],
        ['detail', run.detail],
        ['since', chart.since],
        ['stuck', run.stuck_reason],
        ['phase', run.phase],
        ['lane', run.lane_key],
        ['lane held by', holder && `${holder.run_id} (${holder.status})`],
        ['node', run.node_id],
        ['last progress', run.last_progress_at],
        ['error', run.error_code && `${run.error_code}: ${run.error_message ?? ''}`],
        ['resume blocked', run.status === 'completed' ? null : run.resume_blocker],
        ['it means', MEANING[run.status]],
        ['next', holder ? `runlane run why ${holder.run_id}` : nextStep(run)],
      ]),
      ...questions.map(
        ({ token_id, prompt }) =>
          `asks  ${printable(prompt)}\n      token ${printable(token_id)}\n`,
      ),
      recent.length === 0 ? '' : `\nlast events\n${indented(recent.map(eventLine).join(''))}`,
    ].join(''),
  )
  return EXIT.ok
}

const MEANING: Readonly<Record<Run['status'], string>> = {
  queued: 'it waits for a free slot of its queue, or for its time',
  waiting_on_lane: 'another run of its lane goes first',
  resuming: 'it goes on from its records',
  running: 'its agent works',
  waiting_on_tool: 'a tool has been called and has not answered yet',
  waiting_on_child: 'it waits for a run that it delegated',
  cancel_requested: 'it ends at its next safe boundary',
  waiting_on_human: 'it waits for an answer',
  completed: 'it is over',
  failed: 'it is over',
  cancelled: 'it is over',
  timed_out: 'it is over',
}

/** Undefined from a service that has no such operation, or does not offer it to this role. */
async function diagnosisOf({ client, io }: Context, runId: string): Promise<Diagnosis | undefined> {
  try {
    return await client.getDiagnosis(runId, { signal: io.ended })
  } catch (error) {
    if (error instanceof RunlaneError && (error.status === 404 || error.status === 403))
      return undefined
    throw error
  }
}

function diagnosisText({ summary, causes }: Diagnosis): string {
  const names = [
    ...(['gate', 'since', 'deadline', 'holder', 'limit', 'current', 'evidence', 'action'] as const),
  ]
  const rows = causes.map((cause) => names.map((name) => cause[name]))
  const listed = rows.length === 0 ? '' : indented(table(names, rows))
  return `${printable(summary)}\n${listed}\n`
}

async function lastEvents({ client, io }: Context, runId: string, afterSequence: number) {
  let kept: RunEvent[] = []
  const all = client.listRunEvents(runId, { afterSequence, pageSize: 1000, signal: io.ended })
  for await (const { events } of all.pages()) kept = [...kept, ...events].slice(-500)
  return kept
}

interface Question {
  readonly token_id: string
  readonly prompt: string
}

/** Asked and not answered, as far as the events tell. */
function openQuestions({ status }: Run, events: readonly RunEvent[]): Question[] {
  if (status !== 'waiting_on_human') return []
  const open = new Map<string, Question>()
  for (const { event_type, payload } of events) {
    const { token_id, prompt } = payload
    if (typeof token_id !== 'string') continue
    if (event_type === 'human_asked' && typeof prompt === 'string')
      open.set(token_id, { token_id, prompt })
    if (event_type === 'human_answered') open.delete(token_id)
  }
  return [...open.values()]
}

const HOLDING: readonly Run['status'][] = [
  ...(['resuming', 'running', 'waiting_on_tool', 'waiting_on_child', 'cancel_requested'] as const),
  'waiting_on_human',
]

/** The run that holds the lane which this one waits for. */
async function laneHolder({ client, io }: Context, run: Run): Promise<RunSummary | null> {
  if (run.status !== 'waiting_on_lane') return null
  const filter = { laneKey: run.lane_key, status: HOLDING, signal: io.ended }
  for await (const holder of client.listRuns(filter)) return holder
  return null
}
