import { type RunDraft, RunlaneError } from 'runlane/client'
import { describe, expect, onTestFinished, test } from 'vitest'
import { serve, scripted } from '../http/setup.ts'
import { eventually } from '../support/eventually.ts'
import { allOf, clientOf, failureOf, restartable, restarted } from './setup.ts'

const { service, api } = await serve('postgres').then((served) => ({ ...served, api: served }))
const client = clientOf(service)
const draft = (steps: readonly unknown[], more = {}) => scripted(steps, more) as RunDraft

describe('posting', () => {
  test('answers the durable run, and wait its end', async () => {
    const posted = await client.postRun(draft([{ return: { found: 7 } }], { owner: '@ana' }))
    expect(posted).toMatchObject({ agent: 'scripted', owner: '@ana', created_by: 'token:admin' })

    const run = await client.wait(posted.run_id)
    expect(run).toMatchObject({ run_id: posted.run_id, status: 'completed', output: { found: 7 } })
    expect(await client.getRun(posted.run_id)).toMatchObject({ output: { found: 7 } })
  })

  test('twice is two runs, and under one key one run', async () => {
    const same = draft([], { conversation_id: 'keys' })
    const [a, b] = [await client.postRun(same), await client.postRun(same)]
    expect(b.run_id).not.toBe(a.run_id)

    const options = { idempotencyKey: 'order-17' }
    const [c, d] = [await client.postRun(same, options), await client.postRun(same, options)]
    expect(d.run_id).toBe(c.run_id)
    expect(await allOf(client.listRuns({ conversationId: 'keys' }))).toHaveLength(3)
    const other = client.postRun({ ...same, priority: 1 }, options)
    expect(await failureOf(other)).toMatchObject({ status: 409, code: 'idempotency_conflict' })
  })

  test('a batch is answered in its order, or posted not at all', async () => {
    const drafts = [1, 2, 3].map((n) => draft([], { conversation_id: `batch-${n}` }))
    const posted = await client.postRuns(drafts)
    expect(posted.map((run) => run.conversation_id)).toEqual(['batch-1', 'batch-2', 'batch-3'])

    const bad = [draft([], { conversation_id: 'none' }), draft([{ think: 'x' }])]
    const error = await failureOf(client.postRuns(bad))
    expect(error).toMatchObject({ status: 422, code: 'validation_error' })
    expect((error as RunlaneError).errors).toMatchObject([{ path: 'runs[1].input.steps[0].think' }])
    expect(await allOf(client.listRuns({ conversationId: 'none' }))).toEqual([])
  })

  test('what is refused says why, in which field, and under which request', async () => {
    const error = await failureOf(client.postRun({ agent: 'nobody' }))
    expect(error).toBeInstanceOf(RunlaneError)
    expect(error).toMatchObject({
      ...{ name: 'RunlaneError', status: 422, code: 'unknown_agent', retryAfterMs: 0 },
      errors: [{ path: 'agent', message: expect.stringMatching(/\S/) }],
      requestId: expect.stringMatching(/\S/),
      problem: { type: 'about:blank' },
    })
    expect((error as RunlaneError).detail).toBe((error as RunlaneError).message)
    expect(await failureOf(client.getRun('run_none'))).toMatchObject({ code: 'not_found' })
    const stranger = clientOf({ url: service.url, token: 'not-a-token' })
    expect(await failureOf(stranger.whoAmI())).toMatchObject({ status: 401, code: 'unauthorized' })
  })

  test('an id stays in its place in the path, or is refused before anything is sent', async () => {
    const id = 'a/../b?c#d%2e ü'
    await client.postRun(draft([], { conversation_id: id }))
    expect(await client.getAgentStatus(id)).toMatchObject({ conversation_id: id })
    for (const none of ['', '.', '..'])
      expect(await failureOf((async () => client.getRun(none))())).toBeInstanceOf(TypeError)
  })
})

describe('waiting', () => {
  test('ends with its time, and says how the run was', async () => {
    const { run_id } = await client.postRun(draft([{ think: 60_000 }]))
    onTestFinished(() => void client.cancelRun(run_id).catch(() => {}))

    const error = await failureOf(client.wait(run_id, { timeoutMs: 300 }))
    expect(error).toMatchObject({
      ...{ status: undefined, code: 'wait_timeout' },
      detail: expect.stringMatching(new RegExp(`^run ${run_id} .*: it is \\w+$`)),
      problem: { run_id, run_status: expect.stringMatching(/\w/), stuck_reason: null },
    })
  })

  test('ends at once with the signal, by its reason', async () => {
    const { run_id } = await client.postRun(draft([{ think: 60_000 }]))
    onTestFinished(() => void client.cancelRun(run_id).catch(() => {}))
    const controller = new AbortController()
    const waiting = failureOf(client.wait(run_id, { signal: controller.signal }))
    const reason = new Error('enough')
    controller.abort(reason)
    expect(await waiting).toBe(reason)
    expect(await failureOf(client.getRun(run_id, { signal: controller.signal }))).toBe(reason)
  })

  test('goes on through a kill and a restart of the service', async () => {
    const first = await restartable()
    const waiter = clientOf(first)
    const { run_id } = await waiter.postRun(
      draft([{ tool: 't', ms: 1500, effects: 'idempotent' }, { return: 'done' }]),
    )
    const waiting = waiter.wait(run_id)
    await first.kill()
    await restarted(first)
    expect(await waiting).toMatchObject({ status: 'completed', output: 'done', attempt: 2 })
  })
})

describe('lists', () => {
  test('are read page by page, each row once', async () => {
    const drafts = Array.from({ length: 7 }, () => draft([], { conversation_id: 'pages' }))
    const posted = (await client.postRuns(drafts)).map((run) => run.run_id)
    const list = client.listRuns({ conversationId: 'pages', pageSize: 3 })

    expect((await allOf(list)).map((run) => run.run_id)).toEqual(posted.toReversed())
    const pages = await allOf(list.pages())
    expect(pages.map((page) => page.runs.length)).toEqual([3, 3, 1])
    expect(pages[0]?.cursor).toBeGreaterThan(0)
    for (const run_id of posted) await client.wait(run_id)
    const filter = {
      status: ['completed', 'failed'],
      conversationId: 'pages',
      pageSize: 4,
    } as const
    expect(await allOf(client.listRuns(filter))).toHaveLength(7)
    expect(await allOf(client.listRuns({ ...filter, since: new Date() }))).toEqual([])
  })

  test('of what belongs to a run are what the service lists', async () => {
    const steps = [{ tool: 'search', result: 1 }, { journal: { next_action: 'x' } }, { say: 'Hi' }]
    const { run_id } = await client.postRun(draft(steps))
    await client.wait(run_id)

    const filter = { visibility: 'internal', pageSize: 2 } as const
    expect(await allOf(client.listRunEvents(run_id, filter))).toEqual(await api.events(run_id))
    const later = await allOf(client.listRunEvents(run_id, { ...filter, afterSequence: 4 }))
    expect(later[0]?.sequence).toBe(5)
    expect(await allOf(client.listToolResults(run_id))).toMatchObject([
      { tool: 'search', result: 1 },
    ])
    expect(await allOf(client.listCheckpoints(run_id, { pageSize: 1 }))).not.toEqual([])
    expect(await allOf(client.listAttempts(run_id))).toMatchObject([{ outcome: 'completed' }])
    expect(await allOf(client.listChildren(run_id))).toEqual([])
    expect(await client.getJournal(run_id)).toMatchObject({ content: { next_action: 'x' } })
    expect(await client.getStatechart(run_id)).toMatchObject({ machine: 'run' })
    expect(await client.previewResume(run_id)).toMatchObject({ resume_available: false })
  })
})

describe('steering', () => {
  test('cancels and waits for the end', async () => {
    const { run_id, conversation_id } = await client.postRun(draft([{ think: 60_000 }]))
    expect(await client.getAgentStatus(conversation_id)).toMatchObject({ can_cancel: true })

    const { command, run } = await client.cancelRun(run_id, { reason: 'enough', waitMs: 10_000 })
    expect(command).toMatchObject({ kind: 'cancel', status: 'applied' })
    expect(run?.status).toBe('cancelled')
    expect(await failureOf(client.cancelRun(run_id))).toMatchObject({ code: 'not_cancellable' })
    const audited = async () =>
      (await allOf(client.listAudit({ action: 'agent_runtime.cancel', pageSize: 1 }))).filter(
        (row) => row.run_id === run_id,
      )
    // A refusal is written after it was answered.
    await eventually(async () => (await audited()).length === 2)
    expect(await audited()).toMatchObject([
      { outcome: 'refused', code: 'not_cancellable' },
      { outcome: 'applied', reason: 'enough' },
    ])
  })

  test('cancels what runs in a conversation', async () => {
    const { run_id } = await client.postRun(draft([{ think: 60_000 }], { conversation_id: 'stop' }))
    expect(await client.cancelAgentRun('stop')).toMatchObject({ run_id, conversation_id: 'stop' })
    expect(await client.wait(run_id)).toMatchObject({ status: 'cancelled' })
  })

  test('resumes a failed run, to go on from its records', async () => {
    const { run_id } = await client.postRun(draft([{ tool: 't' }, { fail: 'no' }]))
    expect(await client.wait(run_id)).toMatchObject({ status: 'failed', error_message: 'no' })
    expect(await client.previewResume(run_id)).toMatchObject({ resume_available: true })

    const { command, run } = await client.resumeRun(run_id, { reason: 'again', waitMs: 10_000 })
    expect(command).toMatchObject({ kind: 'resume', status: 'applied' })
    expect(run).toMatchObject({ status: 'failed', attempt: 2 })
    const done = await client.postRun(draft([]))
    await client.wait(done.run_id)
    expect(await failureOf(client.resumeRun(done.run_id))).toMatchObject({
      ...{ status: 409, code: 'not_resumable' },
      problem: { resume_blocker: expect.stringMatching(/completed/) },
    })
  })

  test('sends a signal to the code of a run, once, however often under one key', async () => {
    const { run_id } = await client.postRun(draft([{ think: 60_000 }]))
    const once = { idempotencyKey: 'signal-once' }
    const sent = await client.signal(run_id, 'approve', { by: 'ana' }, once)
    expect(sent.command).toMatchObject({ kind: 'signal', status: 'applied', outcome: 'kept' })
    expect(await client.signal(run_id, 'approve', { by: 'ana' }, once)).toMatchObject({
      command: sent.command,
    })
    expect(await failureOf(client.signal(run_id, 'a name'))).toMatchObject({ status: 422 })
    await client.cancelRun(run_id, { waitMs: 10_000 })
    expect(await failureOf(client.signal(run_id, 'approve'))).toMatchObject({ code: 'not_active' })
  })

  test('answers a run that asks what became of a call', async () => {
    const first = await restartable()
    const caller = clientOf(first)
    const { run_id } = await caller.postRun(draft([{ tool: 'pay', ms: 60_000, effects: 'unsafe' }]))
    const refused = await failureOf(caller.respond(run_id, { outcome: 'retry' }))
    expect(refused).toMatchObject({ code: 'not_waiting' })
    await untilEvent(caller, run_id, 'tool_started')
    await first.kill()
    await restarted(first)
    await untilEvent(caller, run_id, 'human_asked')

    const answer = { outcome: 'succeeded', result: { paid: true } }
    const { run } = await caller.respond(run_id, answer, { waitMs: 10_000 })
    expect(run).toMatchObject({ status: 'completed', output: { results: [{ paid: true }] } })
  })
})

const untilEvent = async (
  caller: ReturnType<typeof clientOf>,
  runId: string,
  type: string,
): Promise<void> => {
  for await (const event of caller.events({ runId })) if (event.event_type === type) return
}

test('tokens are made, work, and are revoked', async () => {
  const { token, id } = await client.createToken({ name: 'backend-1', role: 'service' })
  const backend = clientOf({ url: service.url, token })
  expect(await backend.whoAmI()).toEqual({ name: 'token:backend-1', role: 'service' })
  expect((await client.listTokens()).tokens).toMatchObject([{ id, name: 'backend-1' }])
  expect(await failureOf(backend.listTokens())).toMatchObject({ status: 403, code: 'forbidden' })

  await client.revokeToken(id)
  expect(await failureOf(backend.whoAmI())).toMatchObject({ code: 'unauthorized' })
  expect(await failureOf(client.revokeToken(id))).toMatchObject({ code: 'not_found' })
})

test('agents, charts and the service itself can be read', async () => {
  const agent = { name: 'declared', instructions: 'Help.', models: ['openai:gpt-5.2'] }
  expect(await client.declareAgent(agent)).toMatchObject({ name: 'declared' })
  expect(await client.getAgent('declared')).toMatchObject({ kind: 'declared' })
  const names = (await client.listAgents()).agents.map(({ name }) => name)
  expect(names.toSorted()).toEqual(['declared', 'scripted'])
  await client.deleteAgent('declared')
  expect(await failureOf(client.getAgent('declared'))).toMatchObject({ code: 'not_found' })

  expect((await client.listMachines()).machines.map(({ id }) => id)).toContain('run')
  expect(await client.getMachine('run')).toMatchObject({ id: 'run', initial: 'queued' })
  expect(await client.getMachineDiagram('run', 'mmd')).toMatch(/^stateDiagram|\nstateDiagram/)
  expect(await client.getMachineDiagram('run', 'svg')).toContain('<svg')
  expect(await client.readyz()).toMatchObject({ status: 'ready' })
  expect(await client.healthz()).toMatchObject({ status: 'ok' })
  expect((await client.listNodes()).nodes).toHaveLength(1)
})

test('there is a method for each operation of the contract that is not for browsers, under its name', async () => {
  const { paths } = await client.request<{ paths: Record<string, object> }>('GET', '/openapi.json')
  const operations = Object.values(paths)
    .flatMap((path) => Object.values(path) as { operationId: string }[])
    .map(({ operationId }) => operationId)
  const methods = Object.keys(client)
  const own = ['wait', 'events', 'request', 'getMachineDiagram']
  expect(methods.filter((name) => !operations.includes(name)).toSorted()).toEqual(own.toSorted())
  const byEvents = ['streamRunEvents', 'streamConversationEvents', 'streamEvents']
  // Prometheus asks for its metrics itself.
  const forBrowsers = ['getOpenApi', 'getDocs', 'getConsole', 'logIn', 'logOut', 'getMetrics']
  expect(operations.filter((name) => !methods.includes(name)).toSorted()).toEqual(
    [...byEvents, ...forBrowsers].toSorted(),
  )
})
