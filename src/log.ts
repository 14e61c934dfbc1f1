import { type DestinationStream, pino } from 'pino'
import type { Logger } from './runtime/log.ts'

/** Whatever a fact is called, these are never written: not at the top, not one level down. */
const SECRETS = [
  'token',
  'authorization',
  'cookie',
  'password',
  'secret',
  'headers',
  'input',
  'output',
  'payload',
  'prompt',
  'messages',
].flatMap((name) => [name, `*.${name}`])

/** One JSON object a line on standard error: `level`, `at`, the node, the facts, `message`. */
export function createLogger(
  nodeId: string,
  destination: DestinationStream = pino.destination({ dest: 2, sync: true }),
): Logger {
  return pino(
    {
      base: { node_id: nodeId },
      messageKey: 'message',
      timestamp: () => `,"at":"${new Date().toISOString()}"`,
      formatters: { level: (level) => ({ level }) },
      redact: { paths: SECRETS, censor: '[redacted]' },
    },
    destination,
  )
}
