import { describe, expect, test } from 'vitest'
import type { ApiResponse, Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { DATABASES, expectProblem, scripted, serveOnBoth } from './setup.ts'

const RUN_FIELDS = [
  ...[
    'run_id',
    'conversation_id',
    'parent_run_id',
    'root_run_id',
    'agent',
    'surface',
    'created_by',
  ],
  ...['owner', 'status', 'detail', 'lane_key', 'queue', 'priority', 'attempt', 'node_id', 'phase'],
  ...[
    'saying',
    'tool',
    'stuck_reason',
    'orphan',
    'cancel_requested',
    'tier',
    'model',
    'created_at',
  ],
  ...[
    'started_at',
    'last_heartbeat_at',
    'last_progress_at',
    'ended_at',
    'age_ms',
    'input',
    'output',
  ],
  ...['error_message', 'error_code', 'current_checkpoint_id', 'metadata', 'resume_blocker'],
  ...['trace_id', 'children', 'usage', 'cancel', 'forked_from'],
]

const soon = (ms: number): string => new Date(Date.now() + ms).toISOString()

const served = await serveOnBoth()

describe.each(DATABASES)('on %s', (database) => {
  const { get, post, createRun, createBatch, run, waitForRun, events } = served[database]

  test('POST /runs answers 202 with the run and its address, and the run completes', async () => {
    const body = scripted(
      [
        { step: 'one', result: 1 },
        { tool: 't', result: { a: [2] } },
      ],
      {
        conversation_id: 'c42',
        surface: 'chat',
        owner: '@ana',
        priority: 7,
        metadata: { ticket: 'T-1' },
        timeouts: { reasoning: '30s', tool: '150s', turn: '600s' },
      },
    )
    const response = await post('/runs', body)

    expect(response.status).toBe(202)
    expect(response.headers.get('location')).toBe(`/runs/${response.body.run_id}`)
    expect((await get(response.headers.get('location') ?? '')).status).toBe(200)
    const done = await waitForRun(response.body.run_id)
    expect(done).toMatchObject({
      run_id: expect.stringMatching(/^run_[0-9A-Z]{26}$/),
      conversation_id: 'c42',
      parent_run_id: null,
      root_run_id: done.run_id,
      agent: 'scripted',
      surface: 'chat',
      created_by: 'token:admin',
      owner: '@ana',
      status: 'completed',
      lane_key: 'conversation:c42',
      queue: 'default',
      priority: 7,
      attempt: 1,
      cancel_requested: false,
      input: body.input,
      output: { results: [1, { a: [2] }] },
      error_message: null,
      error_code: null,
      metadata: { ticket: 'T-1', resume_available: false },
      usage: { input_tokens: 0, output_tokens: 0 },
    })
    for (const field of ['created_at', 'started_at', 'ended_at', 'last_heartbeat_at']) {
      expect(done[field]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$/)
    }
  })

  test('the run object has exactly the fields of the contract, lists omit input, output and cancel', async () => {
    const { run_id } = await createRun(scripted([]))
    const one = await waitForRun(run_id)
    const { runs } = (await get('/runs?limit=1')).body

    expect(Object.keys(one).toSorted()).toEqual(RUN_FIELDS.toSorted())
    expect(Object.keys(runs[0]).toSorted()).toEqual(
      RUN_FIELDS.filter((name) => !['input', 'output', 'cancel'].includes(name)).toSorted(),
    )
  })

  test('metadata and input come back as they were sent, keys of any name included', async () => {
    const metadata = '{"__proto__":{"a":1},"constructor":2,"ключ":"😀\\n","":null,"n":1.5e-7}'
    const body = `{"agent":"scripted","input":{"steps":[{"return":${metadata}}]},"metadata":${metadata}}`
    const { run_id } = await createRun(body)
    const done = await waitForRun(run_id)

    const { resume_available: _, ...echoed } = done['metadata']
    expect(new Map(Object.entries(echoed))).toEqual(new Map(Object.entries(JSON.parse(metadata))))
    expect(new Map(Object.entries(done['output']))).toEqual(new Map(Object.entries(echoed)))
  })

  test('every event of a run is there, from 1, without a gap', async () => {
    const { run_id } = await createRun(scripted([{ say: 'Hi', chunks: 2 }, { tool: 't' }]))
    await waitForRun(run_id)
    const all = await events(run_id)

    expect(all.map((event) => event.sequence)).toEqual(all.map((_, index) => index + 1))
    const ids = all.map((event) => event.id)
    expect(ids).toEqual(ids.toSorted((a, b) => a - b))
    expect(all.map((event) => event.event_type)).toEqual([
      ...['run_created', 'run_status_changed', 'checkpoint_created', 'lease_acquired'],
      ...['run_status_changed', 'message_delta', 'message_delta', 'message', 'tool_started'],
      ...['run_status_changed', 'tool_finished', 'checkpoint_created', 'run_status_changed'],
      ...['checkpoint_created', 'run_status_changed'],
    ])
    expect(all.find((event) => event.event_type === 'tool_finished')?.payload).toEqual({
      tool_call_id: expect.stringMatching(/\S/),
      tool: 't',
      outcome: 'succeeded',
      duration_ms: expect.any(Number),
    })
    expect(await events(run_id, { limit: 4 })).toEqual(all)
    expect(await events(run_id, { afterSequence: 5 })).toEqual(all.slice(5))
    expect(await events(run_id, { afterSequence: 5_000 })).toEqual([])
    const user = await events(run_id, { visibility: 'user' })
    expect(new Set(user.map((event) => event.event_type))).toEqual(
      new Set(['run_created', 'run_status_changed', 'message_delta', 'message']),
    )
    const operator = await events(run_id, { visibility: 'operator' })
    expect(operator.map((event) => event.event_type)).toContain('tool_started')
    expect(operator.map((event) => event.visibility)).not.toContain('internal')
  })

  test('checkpoints and tool results are listed page by page', async () => {
    const steps = Array.from({ length: 5 }, (_, n) => ({ tool: `t${n}`, result: n }))
    const { run_id } = await createRun(scripted([...steps, { journal: { next_action: 'x' } }]))
    await waitForRun(run_id)

    const pages = async (what: string, plural: string): Promise<unknown[]> => {
      const rows: unknown[] = []
      let cursor = ''
      for (;;) {
        const { body } = await get(`/runs/${run_id}/${what}?limit=2${cursor}`)
        expect(body[plural].length).toBeLessThanOrEqual(2)
        rows.push(...body[plural])
        if (body.next_cursor === null) return rows
        cursor = `&cursor=${body.next_cursor}`
      }
    }
    const whole = (await get(`/runs/${run_id}/checkpoints`)).body.checkpoints
    expect(await pages('checkpoints', 'checkpoints')).toEqual(whole)
    expect(whole.map((checkpoint: { type: string }) => checkpoint.type)).toEqual([
      ...['input', 'tool_result', 'tool_result', 'tool_result', 'tool_result', 'tool_result'],
      ...['journal_update', 'final'],
    ])
    const results = (await get(`/runs/${run_id}/tool-results`)).body.tool_results
    expect(await pages('tool-results', 'tool_results')).toEqual(results)
    expect(results).toMatchObject(
      steps.map(({ tool, result }) => ({ tool, result, outcome: 'succeeded', effects: 'unsafe' })),
    )
  })

  test('a run with a future run_at is queued, out of its lane, and runs when due', async () => {
    const lane_key = `delayed-${database}`
    const run_at = soon(2_500)
    const later = await createRun(scripted([], { lane_key, run_at }))
    expect(later).toMatchObject({ status: 'queued', attempt: 0 })
    const first = await createRun(scripted([], { lane_key }))
    expect((await waitForRun(first.run_id)).status).toBe('completed')

    const done = await waitForRun(later.run_id)
    expect(done.status).toBe('completed')
    expect(Date.parse(done['started_at'])).toBeGreaterThanOrEqual(Date.parse(run_at))
  })

  test('?wait= answers as soon as the run is terminal, or when the time is up', async () => {
    const { run_id } = await createRun(scripted([{ think: 300 }]))
    expect((await get(`/runs/${run_id}?wait=20s`)).body.status).toBe('completed')

    const hanging = await createRun(scripted([{ tool: 't', hang: true }]))
    const asked = performance.now()
    const { body } = await get(`/runs/${hanging.run_id}?wait=700ms`)
    expect(['running', 'waiting_on_tool']).toContain(body.status)
    expect(performance.now() - asked).toBeGreaterThan(650)
    await post(`/runs/${hanging.run_id}/cancel`)
  })

  test('a batch is answered in its order', async () => {
    const owners = Array.from({ length: 120 }, (_, n) => `o${n}`)
    const made = await createBatch(owners.map((owner) => scripted([], { owner })))

    expect(made.map((one) => one.owner)).toEqual(owners)
    const ids = made.map((one) => one.run_id)
    expect(ids).toEqual(ids.toSorted())
    await Promise.all(ids.map((id) => waitForRun(id)))
  })

  test('lists filter by each field, newest first, and page without gap or repetition', async () => {
    const conversation_id = `list-${database}`
    const more = { conversation_id, lane_key: `lane-${database}`, owner: 'Søren 100%_\\' }
    const made = await createBatch(Array.from({ length: 7 }, () => scripted([], more)))
    const other = await createRun({ ...scripted([]), agent: `scripted:${database}` })
    const all = made.map((one) => one.run_id).toReversed()
    await waitForRun(all[0] ?? '')
    await waitForRun(other.run_id)

    const list = async (query: string): Promise<string[]> =>
      (await get(`/runs?${query}`)).body.runs.map((one: Run) => one.run_id)
    expect(await list(`conversation_id=${conversation_id}`)).toEqual(all)
    expect(await list(`lane_key=lane-${database}&status=completed,failed`)).toEqual(all)
    expect(await list(`lane_key=lane-${database}&status=failed`)).toEqual([])
    expect(await list(`agent=scripted:${database}`)).toEqual([other.run_id])
    expect(await list(`q=${encodeURIComponent('søren 100%_\\')}&queue=default`)).toEqual(all)
    expect(await list(`q=${encodeURIComponent('100%__')}`)).toEqual([])
    expect(await list(`q=${other.run_id.slice(4, 30)}`)).toEqual([other.run_id])
    expect(await list(`since=${soon(3_600_000)}`)).toEqual([])
    const created = encodeURIComponent(other['created_at'])
    expect(await list(`since=${created}`)).toContain(other.run_id)

    const paged: string[] = []
    let cursor: string | null = null
    do {
      const query: string = `conversation_id=${conversation_id}&limit=3`
      const { body }: ApiResponse = await get(
        `/runs?${query}${cursor === null ? '' : `&cursor=${cursor}`}`,
      )
      paged.push(...body.runs.map((one: Run) => one.run_id))
      cursor = body.next_cursor
      // What is made meanwhile is newer and must not shift the pages.
      await createRun(scripted([], { conversation_id }))
    } while (cursor !== null)
    expect(paged).toEqual(all)
  })

  test('a failed run says why, and an output that is too large fails it', async () => {
    const { run_id } = await createRun(scripted([{ fail: 'no luck' }]))
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'failed',
      error_message: 'no luck',
      error_code: 'agent_error',
      output: null,
    })
    const tool = await createRun(scripted([{ tool: 't', fail: 'broken' }]))
    expect(await waitForRun(tool.run_id)).toMatchObject({
      status: 'failed',
      error_message: expect.stringContaining('broken'),
      error_code: 'tool_failed',
    })
    const big = 'x'.repeat(400_000)
    const steps = Array.from({ length: 2 }, () => ({ return: big }))
    const large = await createRun(scripted(steps.slice(0, 1)))
    expect(await waitForRun(large.run_id)).toMatchObject({ status: 'completed', output: big })
    const sayings = [{ say: big }, { say: big }]
    const tooLarge = await createRun(scripted([...sayings, { say: 'x'.repeat(220_000) }]))
    expect(await waitForRun(tooLarge.run_id)).toMatchObject({
      status: 'failed',
      error_code: 'output_too_large',
      output: null,
    })
    expect((await run(tooLarge.run_id)).status).toBe('failed')
  })

  test('nothing failed inside', async () => {
    expectProblem(await get('/runs/none'), { status: 404, code: 'not_found' })
    await eventually(async () => (await get('/readyz')).status === 200)
    expect(served[database].service.stderr()).not.toMatch(/"level":"error"/)
  })
})
