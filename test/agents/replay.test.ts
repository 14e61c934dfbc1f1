import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { seeded } from '../support/random.ts'
import { loopOutside, serveLoop } from './loop-setup.ts'

const SEED = Number(process.env['REPLAY_SEED'] ?? Date.now() % 1_000_000)

const folder = mkdtempSync(join(tmpdir(), 'runlane-agents-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Writes the module of an agent with a tool `post`, which posts its input to the outside; `body` is its `run(ctx)`. */
const write = (name: string, body: string): void =>
  writeFileSync(
    join(folder, `${name}.mjs`),
    `import { setTimeout as delay } from 'node:timers/promises'
import { defineAgent, tool, z } from 'runlane'
const post = tool({
  input: z.looseObject({}),
  effects: 'idempotent',
  async execute(input, { idempotencyKey, signal }) {
    const headers = { 'content-type': 'application/json', 'idempotency-key': idempotencyKey }
    const body = JSON.stringify(input)
    return (await fetch(process.env.EFFECTS_URL, { method: 'POST', headers, body, signal })).json()
  },
})
export default defineAgent({ name: '${name}', tools: { post }, async run(ctx) { ${body} } })
`,
  )

/** Branches that end in another order than they began; who is first decides what is called next, and under which number. */
write(
  'racer',
  `const order = []
  const branch = async (name, ms) => {
    if (name.startsWith('step')) await ctx.step(name, () => delay(ms, name))
    else await ctx.tool('post', { name, delay_ms: ms })
    order.push(name)
    const place = order.length
    const told = await ctx.step(\`\${place}: \${name}\`, () => \`\${name} came as number \${place}\`)
    if (place === 1) await ctx.tool('post', { name: \`after \${name}\` })
    return told
  }
  const first = Promise.race(ctx.input.map(([name, ms]) => ctx.step('race ' + name, () => delay(ms, name))))
  const all = await Promise.all(ctx.input.map(([name, ms]) => branch(name, ms)))
  const winner = await first
  await ctx.tool('post', { name: \`winner \${winner}\` })
  await ctx.tool('post', { name: 'last', hang: true })
  return { order, all, winner }`,
)

const CHANGES = {
  unchanged: ['', ''],
  'more-calls': ['', `await ctx.step('more', () => 1)`],
  'another-kind': [`await ctx.tool('post', { n: 2 })`, `await ctx.step('other', () => 2)`],
  'other-arguments': [`{ n: 2 }`, `{ n: 3 }`],
  'other-order': [
    `await ctx.tool('post', { n: 1 }); await ctx.tool('post', { n: 2 })`,
    `await ctx.tool('post', { n: 2 }); await ctx.tool('post', { n: 1 })`,
  ],
  'fewer-calls': [`await ctx.tool('post', { n: 2 });`, `return 'early';`],
  'fewer-at-once': [
    `ctx.tool('post', { n: 3, delay_ms: 50 }), ctx.tool('post', { n: 4 })`,
    `ctx.tool('post', { n: 3, delay_ms: 50 })`,
  ],
  caught: [
    `await ctx.tool('post', { n: 2 })`,
    `try { await ctx.tool('post', { n: 9 }) } catch {} ; try { await ctx.tool('post', { n: 10 }) } catch {}`,
  ],
} as const
type Change = keyof typeof CHANGES
const changes = Object.keys(CHANGES) as Change[]
const BODY = `await ctx.tool('post', { n: 1 }); await ctx.tool('post', { n: 2 });
  await Promise.all([ctx.tool('post', { n: 3, delay_ms: 50 }), ctx.tool('post', { n: 4 })]);
  await ctx.tool('post', { hang: true, n: 'last' }); return 'the end'`
const changed = (change: Change): string => {
  const [before, after] = CHANGES[change]
  return before === '' ? BODY.replace('return', `${after}; return`) : BODY.replace(before, after)
}
for (const change of changes) write(change, BODY)

const { effects, createRun, waitForRun, get, kill, restart } = await serveLoop(
  await loopOutside(),
  {
    RUNLANE_LEASE: '1s',
    RUNLANE_AGENTS: folder,
  },
)

const callsOf = (run_id: string) =>
  effects.calls.filter((call) => call.idempotencyKey?.startsWith(`${run_id}:`))
const isHanging = (run_id: string): boolean =>
  callsOf(run_id).some(({ body, at_end }) => (body as { hang?: true }).hang && at_end === null)

test('branches replay in the order in which they ended, whoever was first then is first again', async () => {
  const random = seeded(SEED)
  const inputs = Array.from({ length: 8 }, () =>
    ['tool a', 'tool b', 'step c', 'step d', 'tool e'].map((name) => [name, random.int(120)]),
  )
  const runs = await Promise.all(inputs.map((input) => createRun({ agent: 'racer', input })))
  const envelope = async (run_id: string) =>
    (await get(`/runs/${run_id}/tool-results`)).body.tool_results as Record<string, unknown>[]
  await eventually(() => runs.every(({ run_id }) => isHanging(run_id)), {
    message: 'the last call',
  })
  const before = await Promise.all(runs.map(({ run_id }) => envelope(run_id)))
  await kill()
  await restart()
  await eventually(() => runs.every(({ run_id }) => isHanging(run_id)), { message: 'it again' })
  effects.release()

  for (const [n, { run_id }] of runs.entries()) {
    const run = await waitForRun(run_id)
    const what = `seed ${SEED}, run ${n}: ${run.error_message}`
    expect(run, what).toMatchObject({ status: 'completed', attempt: 2 })
    const { order, all, winner } = run['output'] as {
      order: string[]
      all: string[]
      winner: string
    }
    const place = (name: string): number => order.indexOf(name) + 1
    const names = (inputs[n] ?? []).map(([name]) => String(name))
    expect(all, what).toEqual(names.map((name) => `${name} came as number ${place(name)}`))

    const recorded = before[n] ?? []
    const after = await envelope(run_id)
    expect(after, what).toHaveLength(recorded.length)
    expect(after.slice(0, -1), what).toEqual(recorded.slice(0, -1))
    const posted = callsOf(run_id).map(({ body }) => (body as { name: string }).name)
    const once = [...names.filter((name) => name.startsWith('tool')), `after ${order[0]}`]
    expect(posted.toSorted(), what).toEqual(
      [...once, `winner ${winner}`, 'last', 'last'].toSorted(),
    )
  }
})

test('code that changed between attempts fails the run and names both calls, and calls nothing', async () => {
  const runs = new Map(
    await Promise.all(
      changes.map(async (agent) => [agent, (await createRun({ agent })).run_id] as const),
    ),
  )
  const idOf = (change: Change): string => runs.get(change) ?? ''
  await eventually(() => [...runs.values()].every(isHanging))
  await kill()
  for (const change of changes) write(change, changed(change))
  await restart()
  await eventually(() => isHanging(idOf('unchanged')) && isHanging(idOf('more-calls')))
  effects.release()

  for (const change of ['unchanged', 'more-calls'] as const)
    expect(await waitForRun(idOf(change))).toMatchObject({ status: 'completed', output: 'the end' })

  const messages = {
    'another-kind': /^call 2 is step other now and was tool post \(arguments \w+\) before/,
    'other-arguments':
      /^call 2 is tool post \(arguments (\w+)\) now and was tool post \(arguments (?!\1)\w+\) before/,
    'other-order': /^call 1 is tool post \(arguments \w+\) now and was tool post/,
    'fewer-calls': /^the agent returned after 1 calls now and went on with call 2, tool post/,
    'fewer-at-once': /^call 4, tool post .* is not made now and had ended before call 3, tool post/,
    caught: /^call 2 is tool post/,
  }
  for (const [change, message] of Object.entries(messages)) {
    const run = await waitForRun(idOf(change as Change))
    expect(run, change).toMatchObject({
      status: 'failed',
      error_code: 'nondeterministic_replay',
      error_message: expect.stringMatching(message),
      output: null,
    })
    expect(callsOf(run.run_id), `${change}: as many as before`).toHaveLength(5)
  }
})
