import { setTimeout as pause } from 'node:timers/promises'
import { type Api, api, type Json, type Run } from './api.ts'
import type { LoadedRun } from './chaos-load.ts'
import type { EffectServer } from './effect-server.ts'
import { eventually } from './eventually.ts'
import { ADMIN_TOKEN } from './service.ts'

/** How often a human has allowed a call to be made again although it had happened, by Idempotency-Key. */
export type Retries = Map<string, number>

export type HumanOptions = {
  readonly url: string
  readonly effects: EffectServer
  readonly retries: Retries
  readonly timeoutMs: number
  /** Says "retry" to a call that did happen; else the human tells the truth. */
  readonly careless?: (key: string) => boolean
}

const ENDED: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled', 'timed_out'])

/**
 * Waits until every run has ended, and answers what they ask meanwhile, as a human would who looks at the other side
 * first: what arrived there has succeeded, what did not is to be tried again.
 *
 * @throws when the time is up, naming the runs that did not end; when a run waits for anything else.
 */
export const answerUntilEnded = async (
  runs: readonly LoadedRun[],
  options: HumanOptions,
): Promise<Map<string, Run>> => {
  const client = api({ url: options.url, token: ADMIN_TOKEN })
  const ended = new Map<string, Run>()
  const last = new Map<string, string>()
  await eventually(
    async () => {
      const open = runs.filter((run) => !ended.has(run.runId))
      for (const chunk of chunked(open, 16)) {
        await Promise.all(chunk.map((run) => look(client, run, options, { ended, last })))
      }
      return ended.size === runs.length
    },
    {
      timeoutMs: options.timeoutMs,
      everyMs: 200,
      message: () => {
        const open = runs.filter((run) => !ended.has(run.runId))
        const shown = open.slice(0, 5).map((run) => last.get(run.runId) ?? run.runId)
        return `the end of ${open.length} of ${runs.length} acknowledged runs, such as\n${shown.join('\n')}\n`
      },
    },
  )
  return ended
}

/** Answers questions of random runs until it is stopped; a service that is away is asked again. */
export const startHuman = (
  runs: () => readonly LoadedRun[],
  options: Omit<HumanOptions, 'timeoutMs'>,
): { stop(): Promise<void> } => {
  let stopped = false
  const client = api({ url: options.url, token: ADMIN_TOKEN })
  const answering = async (): Promise<void> => {
    while (!stopped) {
      await answerSome(client, runs(), options).catch(() => {})
      await pause(100)
    }
  }
  const running = answering()
  return {
    stop: async () => {
      stopped = true
      await running
    },
  }
}

const answerSome = async (
  client: Api,
  runs: readonly LoadedRun[],
  options: Omit<HumanOptions, 'timeoutMs'>,
): Promise<void> => {
  const page = await client.request('GET', '/runs?status=waiting_on_human&limit=10', {
    signal: AbortSignal.timeout(2_000),
  })
  for (const { run_id } of page.body.runs as Run[]) {
    const run = runs.find((one) => one.runId === run_id)
    if (run) await answer(client, run, options)
  }
}

const look = async (
  client: Api,
  run: LoadedRun,
  options: HumanOptions,
  { ended, last }: { ended: Map<string, Run>; last: Map<string, string> },
): Promise<void> => {
  const seen = await client.run(run.runId)
  last.set(run.runId, JSON.stringify({ ...seen, input: undefined, output: undefined }))
  if (ENDED.has(seen.status)) ended.set(run.runId, seen)
  if (seen.status !== 'waiting_on_human') return
  if (seen.detail !== 'unknown_tool_call') {
    throw new Error(`${run.runId} waits for a human because of ${seen.detail}`)
  }
  await answer(client, run, options)
}

/** Answers one open question of the run, if it has any. */
const answer = async (
  client: Api,
  run: LoadedRun,
  options: Omit<HumanOptions, 'timeoutMs'>,
): Promise<void> => {
  const listed = await client.get(`/runs/${run.runId}/tool-results?limit=1000`)
  const unknown = (listed.body.tool_results as Json[]).filter(
    (call) => call.outcome === 'started' && call.effects === 'unsafe',
  )
  const [call] = unknown
  if (!call) return
  const body = { answer: resolutionOf(call, `${run.runId}:${call.tool_call_id}`, options) }
  const path = `/runs/${run.runId}/respond`
  const token = await tokenOf(client, run.runId, call.tool_call_id)
  if (token === undefined) return
  const reply = await client.post(path, { ...body, token_id: token })
  // 409: somebody was faster, or the run has moved on. 503: the database is away.
  if (![202, 409, 503].includes(reply.status)) {
    throw new Error(`POST ${path} answered ${reply.status}: ${JSON.stringify(reply.body)}`)
  }
}

const resolutionOf = (
  call: Json,
  key: string,
  { effects, retries, careless }: Omit<HumanOptions, 'timeoutMs'>,
): Json => {
  const happened = effects.calls.some((made) => made.idempotencyKey === key)
  if (!happened) return { outcome: 'retry' }
  if (careless?.(key) !== true)
    return { outcome: 'succeeded', result: { by: 'human', call: call.tool_call_id } }
  retries.set(key, (retries.get(key) ?? 0) + 1)
  return { outcome: 'retry' }
}

/** The latest question about this call: each crash asks anew. */
const tokenOf = async (client: Api, runId: string, callId: string): Promise<string | undefined> => {
  const events = await client.events(runId, { limit: 1000 })
  const asked = events.filter(
    (event) =>
      event.event_type === 'human_asked' && String(event.payload.prompt).includes(` ${callId} `),
  )
  return asked.at(-1)?.payload.token_id
}

const chunked = <T>(items: readonly T[], size: number): T[][] =>
  Array.from({ length: Math.ceil(items.length / size) }, (_, nth) =>
    items.slice(nth * size, (nth + 1) * size),
  )
