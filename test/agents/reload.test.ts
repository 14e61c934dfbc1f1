import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { expectProblem, serve } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { startService } from '../support/service.ts'
import { agentText, moduleFolder } from './module-folder.ts'

const effects = await startEffectServer()
afterAll(() => effects.close())

const folder = moduleFolder({
  'first.ts': agentText('first', "'one'"),
  'helped.ts': agentText('helped', 'word', "import { word } from './lib/word.ts'"),
  'lib/word.ts': "export const word: string = 'old word'\n",
  'leaving.ts': agentText('leaving', '1'),
})
// The options of Node come before the script, those of the service after it.
const { get, post, createRun, waitForRun } = await serve('postgres', {
  env: { RUNLANE_AGENTS: folder.path },
  nodeArgs: ['src/main.ts'],
  entry: '--watch-agents',
})

const answerOf = async (agent: string): Promise<unknown> => {
  const response = await post('/runs', { agent })
  if (response.status !== 202) return response.body.detail
  const { status, output, error_message } = await waitForRun(response.body.run_id)
  return status === 'completed' ? output : error_message
}
const answers = (agent: string, wanted: unknown) =>
  eventually(async () => (await answerOf(agent)) === wanted, {
    message: `${agent} answering ${String(wanted)}`,
    everyMs: 100,
  })

test('new runs get the new code, however often and however it is saved', async () => {
  expect(await answerOf('first')).toBe('one')
  folder.write('first.ts', agentText('first', "'two'"))
  await answers('first', 'two')
  for (const word of ['three', 'four', 'five']) {
    folder.replace('first.ts', agentText('first', `'${word}'`))
    await answers('first', word)
  }
})

test('a changed helper counts as a change of those who import it', async () => {
  expect(await answerOf('helped')).toBe('old word')
  folder.write('lib/word.ts', "export const word: string = 'new word'\n")
  await answers('helped', 'new word')
})

test('a run in flight ends with the code that it began with', async () => {
  const version = (word: string): string =>
    agentText(
      'slow',
      `{ await ctx.step('wait', () => fetch('${effects.url}/slow', { method: 'POST', body: '{"hang":true}' }).then(() => null)); return '${word}' }`,
    )
  folder.write('slow.ts', version('old'))
  await eventually(async () => (await get('/agents/slow')).status === 200)
  const { run_id } = await createRun({ agent: 'slow' })
  await eventually(() => effects.calls.length === 1)
  folder.write('slow.ts', version('new'))
  folder.write('sign.ts', agentText('sign', "'loaded'"))
  await answers('sign', 'loaded')
  effects.release()
  expect(await waitForRun(run_id)).toMatchObject({ output: 'old', attempt: 1 })
  const next = await createRun({ agent: 'slow' })
  await eventually(() => effects.calls.length === 2)
  effects.release()
  expect(await waitForRun(next.run_id)).toMatchObject({ output: 'new' })
})

test('a new file appears, and a deleted one is gone', async () => {
  expectProblem(await post('/runs', { agent: 'added' }), { status: 422, code: 'unknown_agent' })
  folder.write('added.mjs', agentText('added', "'here'"))
  await answers('added', 'here')
  folder.remove('leaving.ts')
  await eventually(async () => (await get('/agents/leaving')).status === 404)
  expectProblem(await post('/runs', { agent: 'leaving' }), { status: 422, code: 'unknown_agent' })
})

test('a broken save refuses runs with the reason until it is mended, the others go on', async () => {
  folder.write('first.ts', 'export default {{\n')
  await eventually(async () => (await get('/agents')).body.problems.length === 1)
  expect(await answerOf('first')).toContain('is in first.ts, which cannot be used')
  expect(await answerOf('helped')).toBe('new word')
  folder.write('first.ts', agentText('first', "'mended'"))
  await answers('first', 'mended')
  expect((await get('/agents')).body.problems).toEqual([])
})

test('a save that blocks the import does not outlive the next one', async () => {
  folder.write(
    'first.ts',
    `await fetch('${effects.url}/importing', { method: 'POST' })\nfor (;;);\n`,
  )
  await eventually(() => effects.calls.some(({ path }) => path === '/importing'))
  folder.write('first.ts', agentText('first', "'quick again'"))
  await answers('first', 'quick again')
  // The first import is given up after ten seconds; only then its result could overwrite the newer one.
  const until = performance.now() + 11_000
  await eventually(() => performance.now() > until, { timeoutMs: 20_000, everyMs: 500 })
  expect(await answerOf('first')).toBe('quick again')
  expect((await get('/agents')).body.problems).toEqual([])
})

test('a folder that is removed and made again is watched again', async () => {
  rmSync(folder.path, { recursive: true })
  await eventually(async () => (await get('/agents/first')).status === 404)
  mkdirSync(folder.path)
  folder.write('reborn.ts', agentText('reborn', "'again'"))
  await answers('reborn', 'again')
})

test('npm run dev starts on the embedded database, and serves agents', async () => {
  folder.write('dev.ts', agentText('dev', '1'))
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as {
    scripts: Record<string, string>
  }
  const [exec, program, ...options] = (scripts['dev'] ?? '').split(' ')
  expect([exec, program, options.at(-1)]).toEqual(['exec', 'node', '--watch-agents'])
  const dev = await startService({
    env: { RUNLANE_AGENTS: folder.path },
    nodeArgs: options.slice(0, -1),
    entry: '--watch-agents',
  })
  try {
    const client = api(dev)
    const run = await client.createRun({ agent: 'dev' })
    expect(await client.waitForRun(run.run_id)).toMatchObject({ status: 'completed' })
  } finally {
    await dev.kill('SIGTERM')
  }
})
