import { type Api, api, type ApiBase, type Run, type RunEvent, type RunStatus } from './api.ts'
import { eventually } from './eventually.ts'
import type { Replica, WorldOptions } from './in-process.ts'

/**
 * A behaviour of runs as the HTTP contract promises it. It knows a service's address and token, and what can happen to
 * the service's processes; nothing of its inside.
 */
export interface Scenario {
  readonly name: string
  /** The transitions of the run chart without which it cannot go well. */
  readonly needs: readonly string[]
  /** Present: it needs a service of its own, with these settings. */
  readonly alone?: WorldOptions
  play(stage: Stage): Promise<void>
}

export interface Stage {
  readonly service: ApiBase
  /** How long anything may take. */
  readonly deadlineMs: number
  /** Kills the service in the middle of what it does and starts it again. */
  crash(): Promise<ApiBase>
  /** Starts another node beside it. */
  join(): Promise<ApiBase>
  /** Asks the first node to drain, as SIGTERM does. Resolves at once. */
  drain(): void
}

/** Stages of one database: `replica` is its first node. */
export function stageOf(
  start: (options?: { alone?: boolean }) => Promise<Replica>,
  replica: Replica,
  deadlineMs: number,
): Stage {
  return {
    service: replica,
    deadlineMs,
    crash: () => {
      replica.die()
      return start({ alone: true })
    },
    join: () => start(),
    drain: () => void replica.drain(),
  }
}

export type Step = Record<string, unknown>

/** What scenarios say of one service. */
export interface Play {
  readonly api: Api
  /** Posts a run of the scripted agent. */
  post(steps: Step[], more?: Record<string, unknown>): Promise<Run>
  /** The run as soon as it has this status. @throws when it does not get it in time, or has ended otherwise. */
  reaches(run: Run, status: RunStatus): Promise<Run>
  /** The run as soon as it has this event. */
  tells(run: Run, eventType: string): Promise<void>
  ends(run: Run): Promise<Run>
  events(run: Run): Promise<RunEvent[]>
  /** The statuses it has had, in order. */
  history(run: Run): Promise<string[]>
  results(run: Run): Promise<{ tool: string; outcome: string; result: unknown }[]>
  can(run: Run): Promise<string[]>
}

const TERMINAL: readonly RunStatus[] = ['completed', 'failed', 'cancelled', 'timed_out']

export function play(service: ApiBase, timeoutMs: number): Play {
  const client = api(service)
  const events: Play['events'] = (run) => client.events(run.run_id)
  return {
    api: client,
    post: (steps, more = {}) => client.createRun({ agent: 'scripted', input: { steps }, ...more }),
    reaches: async (run, status) => {
      const seen = await client.waitForRun(run.run_id, {
        until: (one) => one.status === status || TERMINAL.includes(one.status),
        timeoutMs,
      })
      if (seen.status !== status) throw new Error(`wanted ${status}: ${JSON.stringify(seen)}`)
      return seen
    },
    tells: async (run, eventType) => {
      const told = async (): Promise<boolean> =>
        (await events(run)).some(({ event_type }) => event_type === eventType)
      await eventually(told, { timeoutMs, message: `${eventType} of ${run.run_id}` })
    },
    ends: (run) => client.waitForRun(run.run_id, { timeoutMs }),
    events,
    history: async (run) =>
      (await events(run))
        .filter(({ event_type }) => event_type === 'run_status_changed')
        .map(({ payload }) => String(payload.to)),
    results: async (run) =>
      (await client.get(`/runs/${run.run_id}/tool-results`)).body.tool_results,
    can: async (run) => (await client.get(`/runs/${run.run_id}/statechart`)).body.can,
  }
}

export const names = (events: RunEvent[]): string[] => events.map(({ event_type }) => event_type)
