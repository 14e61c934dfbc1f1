import process from 'node:process'
import type { Sql } from 'postgres'
import type { Service } from '../support/service.ts'
import { percentile } from './measure.ts'

/** An event as far as the benchmark reads it. */
export interface StreamedEvent {
  event_type: string
  run_id: string
  payload: { to?: string }
}

/** Reads the global event stream from now on until `signal`. `at` is the monotonic time of arrival in milliseconds. */
export async function follow(
  target: Service,
  sql: Sql,
  signal: AbortSignal,
  onEvent: (event: StreamedEvent, at: number) => void,
): Promise<void> {
  const [row] = await sql<
    { last: string }[]
  >`select coalesce(max(id), 0)::text as last from runlane.agent_events`
  const response = await fetch(`${target.url}/agent-events?after_event_id=${row?.last}`, {
    headers: headersOf(target),
    signal,
  })
  const decoder = new TextDecoder()
  let text = ''
  try {
    for await (const part of response.body ?? []) {
      const at = performance.now()
      text += decoder.decode(part as Uint8Array, { stream: true })
      const lines = text.split('\n')
      text = lines.pop() ?? ''
      for (const line of lines)
        if (line.startsWith('data: {"id"')) onEvent(JSON.parse(line.slice(6)) as StreamedEvent, at)
    }
  } catch (error) {
    if (!signal.aborted) throw error
  }
}

/** @throws on any other answer than 202 */
export async function post(target: Service, path: string, body: unknown): Promise<unknown> {
  const response = await fetch(target.url + path, {
    method: 'POST',
    headers: headersOf(target),
    body: JSON.stringify(body),
  })
  if (response.status !== 202)
    throw new Error(`${path} answered ${response.status}: ${await response.text()}`)
  return response.json()
}

export function print(name: string, facts: object): void {
  process.stdout.write(`${name} ${JSON.stringify(facts, null, 2)}\n`)
}

export const spread = (values: number[]) => ({
  samples: values.length,
  p50_ms: round(percentile(values, 0.5)),
  p99_ms: round(percentile(values, 0.99)),
  max_ms: round(Math.max(...values)),
})

const round = (ms: number): number => Number(ms.toFixed(1))

function headersOf(target: Service): Record<string, string> {
  return { authorization: `Bearer ${target.token}`, 'content-type': 'application/json' }
}
