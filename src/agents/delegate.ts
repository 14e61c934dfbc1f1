import { type Json, hashJson } from '../json.ts'
import { newRunId } from '../ids.ts'
import { SessionClosed } from '../errors.ts'
import { fitted } from '../field-errors.ts'
import { type DelegateOptions, DelegationCancelled, RunError, type Timeouts } from './agent.ts'
import type { CallDesk } from './call-desk.ts'
import type { ChildReport, Delegation, Job } from './port.ts'
import { timeouts } from './timeouts.ts'
import { checkedResult } from './values.ts'

/** Runs under each other: a delegation beyond that is a circle rather than a plan. */
const DEPTH_MAX = 12
/** Runs that one run delegates. */
const CHILDREN_MAX = 1_000
const NAMESPACE_LENGTH_MAX = 100

/**
 * The delegations of one attempt. The start of each is recorded in one commit with its child run; how that ended comes as
 * a report and is recorded like the result of any other call, so a resumed run waits on for the same child.
 */
export class Delegations {
  #desk: CallDesk
  #job: Job
  #made = 0

  constructor(desk: CallDesk, job: Job) {
    this.#desk = desk
    this.#job = job
  }

  async make(agent: string, given: Json, options: DelegateOptions): Promise<ChildReport> {
    const desk = this.#desk
    const { value: input } = checkedResult(given)
    const namespace = options.namespace ?? null
    const detach = options.detach ?? false
    const child_run_id = newRunId()
    const { call, recorded } = desk.open(
      'delegate',
      agent,
      hashJson({ input, namespace, detach }),
      { input: { child_run_id, namespace, detach } },
    )
    if (recorded && recorded.outcome !== 'started')
      return checkedReport((await desk.replayed(recorded)) as unknown as ChildReport)
    const lane_key = this.#laneOf(agent, namespace ?? `${desk.runId}.${call.position}`)
    if (!recorded) this.#check(agent, namespace, lane_key, options.timeouts)
    const limits = options.timeouts === undefined ? {} : { timeouts: options.timeouts }
    const child = { child_run_id, agent, input, namespace, lane_key, detach, ...limits }
    const startedAt = performance.now()
    return desk.track(async () => {
      if (recorded) return this.#outcome(call, childOf(recorded.input), startedAt, true)
      await desk.mayAct()
      if (detach) return this.#detach(call, child, startedAt)
      const isStarted = await desk.port.delegate(desk.started(call, null), child)
      if (!isStarted) throw new SessionClosed('the session is ending')
      return this.#outcome(call, child_run_id, startedAt, false)
    })
  }

  /** Nobody waits for it: its record is complete at once. */
  #detach(call: Parameters<CallDesk['started']>[0], child: Delegation, startedAt: number) {
    const { child_run_id } = child
    const report = { child_run_id, status: 'detached', output: null, error_message: null } as const
    const ended = this.#desk.succeeded(call, report, 64, startedAt)
    this.#desk.port.send({ type: 'call.recorded', call: ended, child })
    return report
  }

  async #outcome(
    call: Parameters<CallDesk['started']>[0],
    childRunId: string,
    startedAt: number,
    again: boolean,
  ): Promise<ChildReport> {
    const { port } = this.#desk
    if (again) port.send({ type: 'child.awaited' })
    // A cancel waits for it: the child is told as well, and ends first. Only a hand-over leaves it to the next attempt.
    const report = await this.#desk.reported(port.reportOf(childRunId))
    const { size } = checkedResult(report.output)
    const ended = this.#desk.succeeded(call, report as unknown as Json, size + 200, startedAt)
    port.send({ type: 'child.reported', call: ended, report: { ...report, output: null } })
    return checkedReport(report)
  }

  #laneOf(agent: string, namespace: string): string {
    return `child:${this.#job.conversation_id}:${agent}:${namespace}`
  }

  #check(
    agent: string,
    namespace: string | null,
    lane_key: string,
    limits: Timeouts | undefined,
  ): void {
    this.#made += 1
    const { lanes } = this.#job
    if (typeof agent !== 'string' || agent === '' || agent.length > 255)
      throw new RunError('invalid_delegation', 'ctx.delegate takes the name of an agent')
    if (namespace !== null && (namespace === '' || namespace.length > NAMESPACE_LENGTH_MAX))
      throw new RunError(
        'invalid_delegation',
        `a namespace has 1 to ${NAMESPACE_LENGTH_MAX} characters`,
      )
    const { errors } = fitted(timeouts.optional(), limits)
    if (errors) {
      const [{ path, message } = { path: '', message: 'do not fit' }] = errors
      throw new RunError(
        'invalid_delegation',
        `${['timeouts', path].filter(Boolean).join('.')} ${message}`,
      )
    }
    if (this.#made > CHILDREN_MAX)
      throw new RunError('too_many_children', `a run delegates no more than ${CHILDREN_MAX} runs`)
    if (lanes.length >= DEPTH_MAX)
      throw new RunError(
        'delegation_too_deep',
        `${lanes.length} runs have delegated one another already: no more than ${DEPTH_MAX} stand under each other`,
      )
    if (lanes.includes(lane_key))
      throw new RunError(
        'lane_cycle',
        `the lane ${lane_key} is held by a run that waits for this one: the child would never start`,
      )
  }
}

const childOf = (input: Json): string => (input as { child_run_id: string }).child_run_id

/** @throws DelegationCancelled */
function checkedReport(report: ChildReport): ChildReport {
  if (report.status !== 'delegation_cancelled') return report
  throw new DelegationCancelled(report)
}
