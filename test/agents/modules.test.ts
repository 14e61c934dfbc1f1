import { describe, expect, test } from 'vitest'
import { expectProblem, serve } from '../http/setup.ts'
import { agentText, moduleFolder } from './module-folder.ts'

describe('a folder outside of the checkout', async () => {
  const folder = moduleFolder({
    'typed.ts': `import { type AgentContext, defineAgent, tool, z } from 'runlane'
import { greeting } from './lib/words.ts'
import _shout from './_shout.ts'
interface Named { name: string }
const input = z.object({ name: z.string() })
export default defineAgent({
  name: 'typed',
  description: 'Greets.',
  tools: {
    greet: tool({
      description: 'Says hello.',
      input,
      effects: 'none',
      timeout: '5s',
      execute: ({ name }: Named): string => _shout(greeting(name)),
    }),
  },
  run: (ctx: AgentContext) => ctx.tool('greet', ctx.input as never),
})
`,
    'lib/words.ts': 'export const greeting = (name: string): string => `hello ${name}`\n',
    '_shout.ts': 'export default (text: string): string => text.toUpperCase()\n',
    'script.js': agentText('script', "'a .js file'"),
    'module.mjs': agentText('module', "'a .mjs file'"),
    'common.js':
      "const { defineAgent } = require('runlane')\nmodule.exports = defineAgent({ name: 'common', run: async () => 'CommonJS' })\n",
    'typed.test.ts': 'throw new Error("a test is no agent")\n',
    'typed.d.ts': 'throw new Error("a declaration is no agent")\n',
    '.hidden.ts': 'throw new Error("a hidden file is no agent")\n',
  })
  const { get, createRun, waitForRun, post } = await serve('postgres', {
    env: { RUNLANE_AGENTS: folder.path },
  })

  test('its .ts, .js and .mjs modules are agents; helpers, tests and declarations are not', async () => {
    const { body } = await get('/agents')
    expect(body.problems).toEqual([])
    const code = body.agents.filter(({ kind }: { kind: string }) => kind === 'code')
    expect(code.map(({ name }: { name: string }) => name)).toEqual([
      'common',
      'module',
      'script',
      'typed',
    ])
  })

  test.each([
    ['typed', { name: 'Ana' }, 'HELLO ANA'],
    ['script', null, 'a .js file'],
    ['module', null, 'a .mjs file'],
    ['common', null, 'CommonJS'],
  ])("runs the agent %s, which imports 'runlane'", async (agent, input, output) => {
    const { run_id } = await createRun({ agent, input })
    expect(await waitForRun(run_id)).toMatchObject({ status: 'completed', attempt: 1, output })
  })

  test('a tool is called only with an input that its schema takes', async () => {
    const { run_id } = await createRun({ agent: 'typed', input: { name: 7 } })
    expect(await waitForRun(run_id)).toMatchObject({
      status: 'failed',
      error_code: 'tool_failed',
      error_message: 'invalid input: name: Invalid input: expected string, received number',
    })
  })

  test('an agent is shown with its tools', async () => {
    expect((await get('/agents/typed')).body).toMatchObject({
      name: 'typed',
      kind: 'code',
      description: 'Greets.',
      tools: [{ name: 'greet', description: 'Says hello.', effects: 'none', timeout_ms: 5_000 }],
      isolation: 'shared',
      takes: 'anything',
    })
  })

  test('a code agent cannot be declared over HTTP, replaced or deleted', async () => {
    const declared = { name: 'typed', models: ['openai:gpt-test'] }
    expectProblem(await post('/agents', declared), { status: 409, code: 'agent_exists' })
  })
})

describe('modules that cannot be used', async () => {
  const define = "import { defineAgent } from 'runlane'\n"
  const folder = moduleFolder({
    'fine.ts': agentText('fine', "'fine'"),
    'zz_last.ts': agentText('zz_last', "'last'", 'await new Promise((go) => setTimeout(go, 100))'),
    'words.ts': 'export const word = 1\n',
    'broken.ts': `${define}export default defineAgent({\n  name: 'broken' + ,\n})\n`,
    'broken_js.js': `${define}export default defineAgent({\n  name: ,\n})\n`,
    'enumerated.ts': `${define}enum Mood { Good }\nexport default Mood\n`,
    'lost.ts': "import { nothing } from './words.ts'\nexport default nothing\n",
    'nowhere.ts': "import './not-there.ts'\n",
    'unpacked.ts': "import pack from 'not-a-package-here'\nexport default pack\n",
    'plain.ts': "export default { name: 'plain', run: async () => 1 }\n",
    'typo.ts': `${define}export default defineAgent({ name: 'typo', instrutions: 'x', models: ['x:y'] })\n`,
    'again.ts': agentText('zz_last', '1'),
    'scripted.ts': agentText('scripted', '1'),
    'throws.ts': `${define}\nthrow new Error('no key')\n`,
    'exits.ts': "import { exit } from 'node:process'\nexit(1)\n",
    'floats.ts': agentText(
      'floats',
      '1',
      "void Promise.reject(new Error('unheard'))\nawait new Promise((go) => setTimeout(go, 50))",
    ),
    'late.ts': agentText('late', '1', "setTimeout(() => { throw new Error('late') }, 1)"),
  })
  const { get, post, createRun, waitForRun, service } = await serve('postgres', {
    env: { RUNLANE_AGENTS: folder.path },
  })

  const UNUSABLE: readonly (readonly [string, string])[] = [
    ['broken.ts', 'it could not be imported: SyntaxError: Expression expected (broken.ts:3)'],
    ['broken_js.js', "it could not be imported: SyntaxError: Unexpected token ','"],
    [
      'enumerated.ts',
      'it could not be imported: SyntaxError: TypeScript enum is not supported in strip-only mode (enumerated.ts:2)',
    ],
    ['exits.ts', 'it could not be imported: Error: process.exit() is not available to agents'],
    ['floats.ts', 'importing it threw an error that nobody caught: unheard'],
    [
      'lost.ts',
      "it could not be imported: SyntaxError: The requested module './words.ts' does not provide an export named 'nothing' (lost.ts:1)",
    ],
    ['nowhere.ts', 'it could not be imported: Error: Cannot find module'],
    ['plain.ts', 'its default export is not an agent made with defineAgent()'],
    ['scripted.ts', 'agent scripted: the name belongs to a built-in agent'],
    ['throws.ts', 'it could not be imported: Error: no key (throws.ts:3)'],
    ['typo.ts', 'agent typo: instrutions is an unknown field, did you mean "instructions"?'],
    [
      'unpacked.ts',
      "it could not be imported: Error: Cannot find package 'not-a-package-here' imported from",
    ],
    ['words.ts', 'its default export is missing; it must be an agent made with defineAgent()'],
    ['zz_last.ts', 'its agent zz_last is in again.ts already'],
  ]

  test('are named with their reasons, and the others are agents', async () => {
    const { problems, agents } = (await get('/agents')).body
    expect(problems).toEqual(
      UNUSABLE.map(([file, message]) => ({ file, message: expect.stringContaining(message) })),
    )
    const code = agents.filter(({ kind }: { kind: string }) => kind === 'code')
    expect(code.map(({ name }: { name: string }) => name)).toEqual(['fine', 'late', 'zz_last'])
  })

  test.each(UNUSABLE.filter(([file]) => !/^(scripted|zz_last)/.test(file)))(
    'a run of %s is refused with the reason',
    async (file, message) => {
      const response = await post('/runs', { agent: file.replace(/\.[a-z]+$/, '') })
      expectProblem(response, { status: 422, code: 'unknown_agent', paths: ['agent'] })
      expect(response.body.detail).toContain(`is in ${file}, which cannot be used: ${message}`)
    },
  )

  test.each(['fine', 'late', 'zz_last'])('%s beside them runs', async (agent) => {
    const { run_id } = await createRun({ agent })
    expect(await waitForRun(run_id)).toMatchObject({ status: 'completed', attempt: 1 })
  })

  test('the log has a line for each of them', () => {
    const lines = service.stderr().split('\n')
    for (const [file] of UNUSABLE) {
      const told = lines.filter((line) => line.includes(`/${file}"`))
      expect(told, file).toHaveLength(1)
      expect(told[0]).toContain('an agent module cannot be used')
    }
  })
})

describe('a module that does not come back from its import', async () => {
  const folder = moduleFolder({
    'blocks.ts': 'for (;;);\n',
    'fine.ts': agentText('fine', "'fine'"),
  })
  const { get, createRun, waitForRun } = await serve('postgres', {
    env: { RUNLANE_AGENTS: folder.path },
  })

  test('is given up, and the service starts with the others', async () => {
    expect((await get('/agents')).body.problems).toEqual([
      { file: 'blocks.ts', message: 'importing it took longer than 10 seconds' },
    ])
    const { run_id } = await createRun({ agent: 'fine' })
    expect(await waitForRun(run_id)).toMatchObject({ status: 'completed', output: 'fine' })
  })
})
