import { setTimeout as pause } from 'node:timers/promises'
import { type Api, api, type Json, type Run, type RunEvent } from './api.ts'
import type { Retries } from './chaos-human.ts'
import type { EffectBody, LoadedRun } from './chaos-load.ts'
import type { EffectCall, EffectServer } from './effect-server.ts'
import type { Random } from './random.ts'
import { ADMIN_TOKEN } from './service.ts'

/** Moments (of `performance.now()`) at which a call's result was seen recorded, by Idempotency-Key. */
export type Recorded = Map<string, number>

/** Reads the envelopes of random runs until it is stopped, and notes which calls have a recorded result. */
export const watchRecords = (
  url: string,
  runs: () => readonly LoadedRun[],
  random: Random,
): { readonly recorded: Recorded; stop(): Promise<void> } => {
  const recorded: Recorded = new Map()
  const client = api({ url, token: ADMIN_TOKEN })
  let stopped = false
  const watching = async (): Promise<void> => {
    while (!stopped) {
      const recent = runs().slice(-80)
      if (recent.length > 0)
        await noteRecords(client, random.pick(recent), recorded).catch(() => {})
      await pause(5)
    }
  }
  const running = watching()
  return {
    recorded,
    stop: async () => {
      stopped = true
      await running
    },
  }
}

const noteRecords = async (client: Api, run: LoadedRun, recorded: Recorded): Promise<void> => {
  const listed = await client.request('GET', `/runs/${run.runId}/tool-results?limit=1000`, {
    signal: AbortSignal.timeout(2_000),
  })
  if (listed.status !== 200) return
  for (const call of listed.body.tool_results as Json[]) {
    const key = `${run.runId}:${call.tool_call_id}`
    if (call.outcome === 'succeeded' && !recorded.has(key)) recorded.set(key, performance.now())
  }
}

export type Evidence = {
  readonly runs: readonly LoadedRun[]
  readonly ended: ReadonlyMap<string, Run>
  readonly effects: EffectServer
  readonly recorded: Recorded
  readonly retries: Retries
}

/** All that is wrong about what the outside saw; empty when every promise was kept. */
export const effectProblems = ({ runs, ended, effects, recorded, retries }: Evidence): string[] => {
  const problems: string[] = []
  const byCall = Map.groupBy(effects.calls, (call) => `${bodyOf(call).run}/${bodyOf(call).call}`)
  for (const run of runs) {
    const status = ended.get(run.runId)?.status
    if (status !== 'completed')
      problems.push(`${run.runId} is ${status}: ${ended.get(run.runId)?.error_message}`)
    for (const { callId, effects: kind } of run.calls) {
      const key = `${run.runId}:${callId}`
      const made = byCall.get(`${run.label}/${callId}`) ?? []
      const extra = retries.get(key) ?? 0
      if (status === 'completed' && made.length === 0)
        problems.push(`${key} (${kind}) was never made`)
      if (kind === 'unsafe' && made.length > 1 + extra)
        problems.push(`${key} (unsafe) was made ${made.length} times, ${extra} repetitions allowed`)
      const strange = made.filter((call) => call.idempotencyKey !== key)
      if (strange.length > 0)
        problems.push(`${key} was made with the key ${strange[0]?.idempotencyKey}`)
      const recordedAt = recorded.get(key) ?? Number.POSITIVE_INFINITY
      if (made.some((call) => call.at_start > recordedAt))
        problems.push(`${key} was made after its result was recorded`)
    }
  }
  return [...problems, ...overlapProblems(effects)]
}

/** Two calls of one lane at the same time, unless they are one batch of one run. */
const overlapProblems = (effects: EffectServer): string[] =>
  effects
    .overlaps()
    .map(([first, second]) => [bodyOf(first), bodyOf(second)] as const)
    .filter(([a, b]) => a.run !== b.run || a.batch === null || a.batch !== b.batch)
    .map(([a, b]) => `in lane ${a.lane} ${a.run}/${a.call} and ${b.run}/${b.call} overlapped`)

const bodyOf = (call: EffectCall): EffectBody => call.body as EffectBody

const TERMINAL: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled', 'timed_out'])

/** All that is wrong about the history of these runs; empty when every promise was kept. */
export const historyProblems = async (
  url: string,
  runs: readonly LoadedRun[],
  allowsRetries = true,
): Promise<string[]> => {
  const client = api({ url, token: ADMIN_TOKEN })
  const problems: string[] = []
  for (const run of runs) {
    const events = await client.events(run.runId, { limit: 1000 })
    problems.push(...sequenceProblems(run, events), ...statusProblems(run, events))
    problems.push(...recordProblems(run, events))
    if (!allowsRetries && events.some((event) => event.event_type === 'lease_lost')) {
      problems.push(`${run.runId} was adopted though its node lived`)
    }
  }
  return problems
}

const sequenceProblems = (run: LoadedRun, events: readonly RunEvent[]): string[] => {
  const problems: string[] = []
  for (const [index, event] of events.entries()) {
    if (event.sequence !== index + 1) {
      problems.push(`${run.runId}: sequence ${event.sequence} follows ${index}`)
      break
    }
    if (index > 0 && event.id <= (events[index - 1]?.id ?? 0))
      problems.push(`${run.runId}: id ${event.id} at sequence ${event.sequence} does not grow`)
  }
  return problems
}

/** Each status change starts where the one before ended; the one terminal status comes last. */
const statusProblems = (run: LoadedRun, events: readonly RunEvent[]): string[] => {
  const problems: string[] = []
  let status: string | null = null
  for (const event of events) {
    if (event.event_type !== 'run_status_changed') continue
    if (event.payload.from !== status)
      problems.push(`${run.runId}: ${event.payload.from} → ${event.payload.to} follows ${status}`)
    status = event.payload.to
  }
  const ends = events.filter(
    (event) => event.event_type === 'run_status_changed' && TERMINAL.has(event.payload.to),
  )
  if (ends.length !== 1) problems.push(`${run.runId} has ${ends.length} terminal status events`)
  const after = events.slice(events.indexOf(ends[0] as RunEvent) + 1)
  if (ends.length === 1 && after.length > 0)
    problems.push(
      `${run.runId}: ${after.map((event) => event.event_type).join(', ')} after its end`,
    )
  return problems
}

/** Each call and step has one recorded success. */
const recordProblems = (run: LoadedRun, events: readonly RunEvent[]): string[] => {
  const finished = events.filter(
    (event) => event.event_type === 'tool_finished' && event.payload.outcome === 'succeeded',
  )
  const calls = run.calls.map(({ callId }) => ({
    name: callId,
    times: finished.filter((event) => event.payload.tool_call_id === callId).length,
  }))
  const steps = run.steps.map((name) => ({
    name,
    times: events.filter(
      (event) => event.event_type === 'step_finished' && event.payload.name === name,
    ).length,
  }))
  return [...calls, ...steps]
    .filter(({ times }) => times !== 1)
    .map(({ name, times }) => `${run.runId}: ${name} was recorded ${times} times`)
}
