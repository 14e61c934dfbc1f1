import { setTimeout as delay } from 'node:timers/promises'
import { formatDuration } from '../duration.ts'
import { messageOf, SessionClosed } from '../errors.ts'
import type { Json } from '../json.ts'
import type { Effects } from '../store/rows.ts'
import { type Tool, ToolError } from './agent.ts'
import type { CallDesk, OpenCall } from './call-desk.ts'
import type { SessionControl } from './control.ts'
import { checkedResult, cleanText } from './values.ts'

/** How long a tool that was aborted by its time-out may take to say so itself. */
const ABORT_GRACE_MS = 1_000
const PROGRESS_MS = 1_000

/**
 * Makes a tool call: recorded as started, invoked, recorded as finished.
 * @throws ToolError when it failed, SessionClosed when the session ends and the call is left as started
 */
export async function invokeTool(
  desk: CallDesk,
  tool: Tool<never>,
  input: Json,
  opened: OpenCall,
): Promise<Json> {
  const effects = effectsOf(tool, input)
  const call = { ...opened, effects }
  await desk.mayAct()
  const endsAfterMs = tool.timeout_ms ?? tool.silence_ms ?? null
  if (!(await desk.port.begin(desk.started(call, effects), endsAfterMs)))
    throw new SessionClosed('the run takes no new calls')
  const startedAt = performance.now()
  const { soft, drained, hard } = desk.control
  const ends = endsOf(desk.control, effects)
  let made = false
  try {
    // A cancel that came while the start was committed: recorded as not made. A drain lets a started call go on.
    soft.signal.throwIfAborted()
    hard.signal.throwIfAborted()
    made = true
    const { value, size } = checkedResult(await execute(desk, tool, input, call, ends))
    desk.port.send({ type: 'tool.finished', call: desk.succeeded(call, value, size, startedAt) })
    return value
  } catch (error) {
    // Left as started: the call is made again where the run goes on, or a human is asked about it.
    if (hard.signal.aborted || (drained.signal.aborted && ends.aborted)) throw error
    const message =
      ends.aborted || !made ? 'aborted by a cancel' : messageOf(error) || 'the tool threw an error'
    desk.port.send({ type: 'tool.finished', call: desk.failed(call, message, startedAt) })
    throw new ToolError(call.tool, message)
  }
}

async function execute(
  desk: CallDesk,
  tool: Tool<never>,
  input: Json,
  call: OpenCall,
  ends: AbortSignal,
): Promise<unknown> {
  const { timeout_ms } = tool
  const expiry = new AbortController()
  const scope = {
    signal: timeout_ms === undefined ? ends : AbortSignal.any([ends, expiry.signal]),
    idempotencyKey: desk.keyOf(call),
    toolCallId: call.tool_call_id,
    progress: progressOf(desk, call),
  }
  // Async: what a tool throws at once is a failure of the call like any other.
  const work = (async () => tool.execute(input as never, scope))()
  if (timeout_ms === undefined) return work
  const message = `timed out after ${formatDuration(timeout_ms)}`
  const timer = setTimeout(() => expiry.abort(new Error(message)), timeout_ms)
  try {
    return await Promise.race([work, outlived(expiry.signal, message)])
  } catch (error) {
    throw expiry.signal.aborted
      ? new Error(withWarning(message, call.effects), { cause: error })
      : error
  } finally {
    clearTimeout(timer)
  }
}

/** Rejects when a tool does not end although its time-out has aborted it. */
async function outlived(expired: AbortSignal, message: string): Promise<never> {
  await new Promise<void>((resolve) => {
    expired.addEventListener('abort', () => resolve(), { once: true })
  })
  await delay(ABORT_GRACE_MS, undefined, { ref: false })
  throw new Error(message)
}

const withWarning = (message: string, effects: Effects | null): string =>
  effects === 'unsafe' ? `${message}; what it did outside may still take effect` : message

/** Tells at most once a second, and nothing after the session has ended. */
function progressOf(desk: CallDesk, call: OpenCall): (note: string) => void {
  let toldAt = -PROGRESS_MS
  return (note) => {
    desk.port.beat()
    if (desk.control.hard.signal.aborted || performance.now() - toldAt < PROGRESS_MS) return
    toldAt = performance.now()
    const { tool, tool_call_id } = call
    desk.port.send({
      type: 'progress.reported',
      phase: cleanText(`calling ${tool}: ${note}`) as string,
      tool_call_id,
    })
  }
}

function effectsOf(tool: Tool<never>, input: Json): Effects {
  return typeof tool.effects === 'function'
    ? tool.effects(input as never)
    : (tool.effects ?? 'unsafe')
}

/** Which ends abort a call: only such that leave nothing half-done outside, and always a hard stop. */
function endsOf({ soft, drained, hard }: SessionControl, effects: Effects): AbortSignal {
  if (effects === 'none') return AbortSignal.any([soft.signal, drained.signal, hard.signal])
  if (effects === 'idempotent') return AbortSignal.any([drained.signal, hard.signal])
  return hard.signal
}
