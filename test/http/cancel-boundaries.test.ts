import { afterAll, describe, expect, test } from 'vitest'
import type { Run, RunEvent } from '../support/api.ts'
import { expectEndedOnce, expectStartedAfter, isEnd, toolResultsOf } from '../support/cancelled.ts'
import { type EffectCall, startEffectServer } from '../support/effect-server.ts'
import { readSse } from '../support/sse.ts'
import { DATABASES, scripted, serveOnBoth } from './setup.ts'

/** Runs that are cancelled at the same time. */
const SWEEP = 12

const effects = await startEffectServer()
afterAll(() => effects.close())
const served = await serveOnBoth()

/** Something of each kind of step; `http` steps say at the effect server whose they are. */
const steps = (name: string) => {
  const http = (path: string, kind: string) => ({
    http: `${effects.url}/${name}/${path}`,
    body: { delay_ms: 15 },
    effects: kind,
  })
  return [
    { say: 'On my way.', chunks: 3, ms: 30 },
    { think: 15 },
    { step: 'plan', ms: 10 },
    http('reads', 'none'),
    http('repeats', 'idempotent'),
    { parallel: [{ tool: 'look', ms: 20, effects: 'none' }, http('charges', 'unsafe')] },
    { journal: { next_action: 'delegate' } },
    { delegate: { agent: 'scripted', input: { steps: [http('child', 'unsafe')] } } },
    http('last', 'unsafe'),
    { return: 'done' },
  ]
}

describe.each(DATABASES)('on %s', (database) => {
  const client = served[database]
  const { createRun, waitForRun, events, cancel, get } = client
  const conversation_id = `boundaries-${database}`

  const callsOf = (name: string): EffectCall[] =>
    effects.calls.filter(({ path }) => path.startsWith(`/${name}/`))

  /** Cancels twice as soon as event `boundary` is on the stream, and reads on until the stream ends. */
  const cancelAt = async (boundary: number): Promise<void> => {
    const name = `${database}-${boundary}`
    const more = { conversation_id, lane_key: name }
    const run = await createRun(scripted(steps(name), more))
    const next = await createRun(scripted([{ return: 'next' }], more))

    const seen: RunEvent[] = []
    let answers: ReturnType<typeof cancel>[] = []
    let callsAtEnd = 0
    const url = `${client.service.url}/runs/${run.run_id}/agent-events?visibility=internal`
    for await (const { data } of readSse({ url, token: client.service.token })) {
      if (data === undefined || !data.startsWith('{"id"')) continue
      const event = JSON.parse(data) as RunEvent
      seen.push(event)
      if (event.sequence === boundary || (answers.length === 0 && isEnd(event)))
        answers = [cancel(run.run_id, { reason: 'enough' }), cancel(run.run_id)]
      if (isEnd(event)) callsAtEnd = callsOf(name).length
    }

    const end = expectEndedOnce(seen)
    expect(await events(run.run_id)).toEqual(seen)
    const status = end.payload.to
    expect(status).toMatch(/^(cancelled|completed)$/)
    await expectHeard(run, status, await Promise.all(answers))
    await expectChildrenBefore(run, end)
    await expectStartedAfter(client, next, end)
    // Nothing goes out once the end is told, and all that went out before is in the record.
    expect(callsOf(name)).toHaveLength(callsAtEnd)
    if (status === 'completed') expect(callsAtEnd).toBe(5)
    const recorded = (await toolResultsOf(client, run.run_id)).filter(isHttp)
    expect(recorded.filter(({ outcome }) => outcome === 'started')).toEqual([])
    const done = recorded.filter(({ effects: kind }) => kind !== 'none')
    expect(done.filter(({ outcome }) => outcome === 'succeeded').length).toBe(
      callsOf(name).filter(({ path }) => !/(reads|child)$/.test(path)).length,
    )
  }

  /** An accepted cancel ends the run as cancelled; one that came too late is refused, and changes nothing. */
  const expectHeard = async (
    { run_id }: Run,
    status: string,
    answers: Awaited<ReturnType<typeof cancel>>[],
  ): Promise<void> => {
    for (const answer of answers) expect([202, 409]).toContain(answer.status)
    const commands = answers.flatMap(({ body }) => body.command ?? [])
    const applied = commands.filter((command) => command.status === 'applied')
    expect(applied.length > 0).toBe(status === 'cancelled')
    expect(commands.filter((command) => command.status === 'pending')).toEqual([])
    expect((await waitForRun(run_id)).cancel_requested).toBe(status === 'cancelled')
  }

  const expectChildrenBefore = async ({ run_id }: Run, end: RunEvent): Promise<void> => {
    const { body } = await get(`/runs/${run_id}/children`)
    for (const child of body.children as Run[])
      expect(expectEndedOnce(await events(child.run_id)).id).toBeLessThan(end.id)
  }

  test('a cancel at each event boundary of a run ends it once, and nothing after it', async () => {
    const uncancelled = await createRun(scripted(steps(`${database}-whole`)))
    expect((await waitForRun(uncancelled.run_id)).status).toBe('completed')
    const boundaries = (await events(uncancelled.run_id)).map(({ sequence }) => sequence)
    expect(boundaries.length).toBeGreaterThan(30)

    while (boundaries.length > 0) {
      const sweep = boundaries.splice(0, SWEEP)
      const sibling = await createRun(
        scripted([{ think: 100 }, { return: 'untouched' }], {
          conversation_id,
          lane_key: `sibling ${sweep[0]}`,
        }),
      )
      await Promise.all(sweep.map(cancelAt))
      expect(await waitForRun(sibling.run_id)).toMatchObject({
        status: 'completed',
        cancel_requested: false,
      })
    }
  })

  test('a cancel that meets the end of its run is heard, or refused, never both', async () => {
    const racers = await Promise.all(
      Array.from({ length: 40 }, () => createRun(scripted([{ think: 40 }, { step: 'last' }]))),
    )
    await Promise.all(
      racers.map(async (run, nth) => {
        const stream = readSse({
          url: `${client.service.url}/runs/${run.run_id}/agent-events?visibility=internal`,
          token: client.service.token,
        })
        // Half of them at the last step, half in the midst of thinking.
        for await (const { data } of stream) {
          const event = data?.startsWith('{"id"') ? (JSON.parse(data) as RunEvent) : undefined
          if (event?.event_type === (nth % 2 === 0 ? 'step_finished' : 'lease_acquired')) break
        }
        const answer = await cancel(run.run_id)
        const end = expectEndedOnce(await waitForRun(run.run_id).then(() => events(run.run_id)))
        await expectHeard(run, end.payload.to, [answer])
      }),
    )
  })

  test('nothing failed inside', () => {
    expect(client.service.stderr()).not.toMatch(/"level":"error"/)
  })
})

const isHttp = ({ tool }: { tool: string }): boolean => tool === 'http'
