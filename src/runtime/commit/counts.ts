import type { Json } from '../../json.ts'
import type { FlushAnswer, RunRecord } from '../../store/flush.ts'
import { isTerminal, type RunStatus } from '../../store/rows.ts'

/** A flush that has been answered. */
export interface Flushed {
  /** What is in the database by it. */
  written: RunRecord[]
  refused: number
  answer: FlushAnswer
  ms: number
}

/** What is told of as it happens, since a sum would say too little. */
export interface CountsListener {
  ended(outcome: RunStatus, seconds: number): void
  flushed(seconds: number, records: number): void
}

/**
 * What this node has done since it started: numbers that only grow. They count what is committed, so nothing is counted that
 * did not happen, and nothing twice that was sent twice. (Not counted: claims of a commit whose reply was lost.)
 */
export class Counts {
  runsStarted = 0
  runsAdopted = 0
  recordsRefused = 0
  leasesLost = 0
  recoveries = 0
  readonly finished = new Map<string, number>()
  readonly toolCalls = new Map<string, number>()
  readonly detections = new Map<string, number>()
  /** By action and result, with a space between. */
  readonly verdicts = new Map<string, number>()
  #listener: CountsListener | null = null

  listen(listener: CountsListener): void {
    this.#listener = listener
  }

  flushed({ written, refused, answer, ms }: Flushed): void {
    for (const record of written) this.#record(record, answer.at)
    this.recordsRefused += refused
    this.runsAdopted += answer.adopted.length
    for (const { status } of answer.claimed) if (status === 'running') this.runsStarted += 1
    this.#listener?.flushed(ms / 1000, written.length + refused)
  }

  #record({ events, started_at }: RunRecord, at: string): void {
    for (const { event_type, payload } of events) {
      switch (event_type) {
        case 'tool_finished':
          add(this.toolCalls, payload['outcome'])
          break
        case 'run_status_changed': {
          const to = payload['to'] as RunStatus
          if (!isTerminal(to)) break
          add(this.finished, to)
          if (started_at !== null)
            this.#listener?.ended(to, (Date.parse(at) - Date.parse(started_at)) / 1000)
          break
        }
        case 'run_stuck':
          add(this.detections, payload['clock'])
          break
        case 'run_recovered':
          this.recoveries += 1
          break
        case 'watchdog_verdict':
          add(this.verdicts, payload['action'], payload['result'])
          break
        default:
      }
    }
  }
}

function add(sums: Map<string, number>, ...values: (Json | undefined)[]): void {
  const key = values.map((value) => (typeof value === 'string' ? value : '')).join(' ')
  sums.set(key, (sums.get(key) ?? 0) + 1)
}
