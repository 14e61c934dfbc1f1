import { randomUUID } from 'node:crypto'
import type { RunEvent } from '../../machines/run-setup.ts'
import type { RunMessage } from '../../src/runtime/run/messages.ts'
import type { SessionCall } from '../../src/agents/port.ts'
import { newRunId } from '../../src/ids.ts'

/** A call of a session as it would report it; ids of their own by `position`. */
export const callOf = (position: number, changes: Partial<SessionCall> = {}): SessionCall => ({
  tool_call_id: `tool_${position}`,
  provider_call_id: null,
  position,
  settled: null,
  kind: 'tool',
  tool: 'search',
  args_hash: null,
  input: null,
  effects: 'unsafe',
  outcome: 'started',
  result: null,
  error_message: null,
  duration_ms: null,
  size: 10,
  ...changes,
})

/** An event of the chart with all that its record needs beside it; `nth` makes what it names unique. */
export function messageOf(event: RunEvent, nth: number): RunMessage {
  const payload: Record<string, unknown> = { ...PAYLOADS[event.type] }
  if (event.type === 'tool.started') payload['call'] = callOf(nth)
  if (event.type === 'tool.finished')
    payload['call'] = callOf(nth, { outcome: 'succeeded', settled: nth })
  if (event.type === 'call.recorded')
    payload['call'] = callOf(nth, { kind: 'step', outcome: 'succeeded', settled: nth })
  if (event.type === 'child.started') {
    const child_run_id = newRunId()
    payload['call'] = callOf(nth, { kind: 'delegate', tool: 'scripted', effects: null })
    payload['child'] = {
      child_run_id,
      agent: 'scripted',
      input: { steps: [] },
      namespace: null,
      lane_key: `child:${child_run_id}`,
      detach: false,
    }
  }
  if (event.type === 'human.answered') payload['token_id'] = `wp_${randomUUID()}`
  if (event.type === 'human.asked') {
    payload['waitpoints'] = Array.from({ length: event.questions }, (_, index) => ({
      token_id: `wp_${randomUUID()}`,
      kind: 'unknown_tool_call',
      name: null,
      tool_call_id: `tool_${nth}_${index}`,
      tool: 'search',
      prompt: 'Did it happen?',
    }))
  }
  return { ...event, ...payload } as RunMessage
}

const PAYLOADS: Partial<Record<RunEvent['type'], object>> = {
  'child.reported': {
    call: null,
    report: { child_run_id: 'run_child', status: 'completed', output: null, error_message: null },
  },
  'progress.reported': { phase: 'thinking' },
  'session.ready': { replayed: [] },
  'human.answered': {
    by: 'test',
    kind: 'crash_loop',
    resolution: { outcome: 'retry' },
    call: null,
  },
  'input.replaced': {
    input: { steps: [] },
    caller: { name: 'token:admin', role: 'admin', requestId: null },
  },
  'run.completed': { output: 1, size: 1 },
  'run.failed': { code: 'agent_error', message: 'boom' },
  'cancel.requested': { by: 'test', reason: null },
  'queue.expired': { limit_ms: 3_600_000 },
  'verdict.noted': {
    verdict: {
      result: 'would_end',
      clock: 'tool',
      stuck_reason: 'tool_call.timeout(150s)',
      limit_ms: 1,
      stuck_ms: 2,
      executor_silent_ms: 0,
      probe: 'alive',
    },
  },
  'run.recycled': { by: 'test' },
  'readers.gone': { grace_ms: 30_000 },
  'turn.extended': { by_ms: 1_000 },
  'tool.started': { timeout_ms: null },
  'stuck.noted': { limit_ms: 15_000, since: '2026-01-01T00:00:00.000Z' },
  'resume.requested': { by: 'test', resolutions: [] },
}
