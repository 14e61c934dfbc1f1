import type { SessionCall } from './port.ts'

/** A call before its outcome. */
export type OpenCall = Omit<
  SessionCall,
  'settled' | 'outcome' | 'result' | 'error_message' | 'duration_ms' | 'size'
>

export const started = (call: OpenCall): SessionCall => ({
  ...call,
  settled: null,
  outcome: 'started',
  result: null,
  error_message: null,
  duration_ms: null,
  size: 0,
})
