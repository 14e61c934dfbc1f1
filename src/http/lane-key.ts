import type { RunBody } from './contract/run-body.ts'

/**
 * The lane of a run whose caller named none: what belongs together is strictly ordered, everything else runs beside it.
 * Answers the field that is missing where the surface needs one.
 */
export function laneKeyOf(
  body: RunBody,
  conversationId: string,
): { laneKey: string } | { missing: string } {
  if (isGiven(body.lane_key)) return { laneKey: body.lane_key }
  if (body.surface === 'inbox') {
    return !isGiven(body.inbox_item_id)
      ? { missing: 'inbox_item_id' }
      : { laneKey: `inbox_item:${body.inbox_item_id}` }
  }
  if (body.surface === 'schedule') {
    return !isGiven(body.task_run_id)
      ? { missing: 'task_run_id' }
      : { laneKey: `task_run:${body.task_run_id}` }
  }
  if (
    body.surface === 'slack' ||
    body.surface === 'telegram' ||
    (body.surface === 'email' && isGiven(body.sender_key))
  ) {
    if (!isGiven(body.sender_key)) return { missing: 'sender_key' }
    return { laneKey: `adhoc:${body.channel ?? body.surface}:${body.sender_key}` }
  }
  return { laneKey: `conversation:${conversationId}` }
}

const isGiven = (value: string | null | undefined): value is string =>
  value !== null && value !== undefined
