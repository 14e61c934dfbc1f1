import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const IMPORTS = 'eslint(no-restricted-imports)'
const GLOBALS = 'eslint(no-restricted-globals)'
const PROPERTIES = 'eslint(no-restricted-properties)'

type Source = [file: string, code: string]
/** The rule that must refuse the file. */
type Plant = [...Source, rule: string]

const words = (text: string): string[] => text.split(' ')

const GLOBAL_NAMES = words(
  'Date setTimeout setInterval setImmediate queueMicrotask crypto process performance fetch ' +
    'WebSocket console Buffer globalThis global require eval Function',
)
const MODULES = words(
  'node:fs fs node:crypto postgres hono hono/sse zod @xstate/store xstate/actors ' +
    '../src/store/rows.ts ./../src/store/rows.ts ./below/chart.ts',
)

const CHART_CODE: [code: string, rule: string][] = [
  ...GLOBAL_NAMES.map((name): [string, string] => [
    `export const planted: unknown = ${name}`,
    GLOBALS,
  ]),
  ['export const planted = new Date().getTime()', GLOBALS],
  ['export const planted = globalThis.Date.now()', GLOBALS],
  ['const { Date: D } = globalThis; export const planted = new D()', GLOBALS],
  ['export const planted = Math.random()', PROPERTIES],
  ['const { random } = Math; export const planted = random()', PROPERTIES],
  ...MODULES.map((from): [string, string] => [
    `import * as all from '${from}'; export const planted = all`,
    IMPORTS,
  ]),
  ["import 'node:fs'", IMPORTS],
  ["export * from 'node:fs'", IMPORTS],
  ["export const planted = await import('node:fs')", IMPORTS],
  ["import type { Row } from '../src/store/rows.ts'; export type Planted = Row", IMPORTS],
]
const IN_A_CHART = CHART_CODE.map(([code, rule], n): Plant => [`machines/bad-${n}.ts`, code, rule])

const IN_THE_LAYERS: Plant[] = [
  ['src/a.ts', "import postgres from 'postgres'; export const x = postgres", IMPORTS],
  ['src/b.ts', "import { PGlite } from '@electric-sql/pglite'; export const x = PGlite", IMPORTS],
  ['src/c.ts', "export const x = await import('postgres')", IMPORTS],
  ['src/main.ts', "import postgres from 'postgres'; export const x = postgres", IMPORTS],
  ['src/runtime/a.ts', "import postgres from 'postgres'; export const x = postgres", IMPORTS],
  ['src/http/a.ts', "import postgres from 'postgres'; export const x = postgres", IMPORTS],
  ['src/d.ts', 'export const x = process.env', GLOBALS],
  ['src/e.ts', 'export const x = globalThis.process.env', GLOBALS],
  ['src/f.ts', "import { env } from 'node:process'; export const x = env", IMPORTS],
  ['src/g.ts', "import process from 'node:process'; export const x = process", IMPORTS],
  ['src/store/a.ts', 'export const x = process.pid', GLOBALS],
  ['src/store/b.ts', "import { setup } from 'xstate'; export const x = setup", IMPORTS],
  ['src/store/c.ts', "import type { A } from '../../machines/good.ts'; export type X = A", IMPORTS],
  ['src/store/d.ts', "import { x } from '../runtime/good.ts'; export const y = x", IMPORTS],
  ['src/runtime/b.ts', "import { x } from '../http/good.ts'; export const y = x", IMPORTS],
  ['src/runtime/c.ts', "import { Hono } from 'hono'; export const x = Hono", IMPORTS],
  ['src/runtime/d.ts', "export const x = fetch('http://127.0.0.1')", GLOBALS],
  ['src/runtime/e.ts', 'export const x = Date.now()', PROPERTIES],
  ['src/http/b.ts', "import { a } from '../../machines/good.ts'; export const x = a", IMPORTS],
  ['src/h.ts', "import { x } from './main.ts'; export const y = x", IMPORTS],
  ['src/i.ts', 'console.log(1)', 'eslint(no-console)'],
  ['src/j.ts', 'export default 1', 'import(no-default-export)'],
  // Proves that the rules that need types run at all.
  [
    'src/k.ts',
    'const later = async () => {}; export const x = () => { later() }',
    'typescript(no-floating-promises)',
  ],
]

const ALLOWED: Source[] = [
  [
    'machines/good.ts',
    "import { setup } from 'xstate'; import { b } from './sibling.ts'; export const a = setup({}).createMachine({ id: b }); export type A = typeof a",
  ],
  ['machines/sibling.ts', "export const b = 'b'"],
  ['src/store/good.ts', "import postgres from 'postgres'; export const x = postgres"],
  ['src/store/rows.ts', 'export type Row = { id: string }'],
  ['src/runtime/good.ts', "import { a } from '../../machines/good.ts'; export const x = a"],
  ['src/http/good.ts', "import type { A } from '../../machines/good.ts'; export type X = A"],
  ['src/main.ts', 'console.log(process.pid)'],
  ['src/good.ts', "import { hrtime } from 'node:process'; export const x = hrtime"],
  ['test/good.test.ts', 'console.log(process.env)'],
  ['test/bench/main.ts', "import postgres from 'postgres'; console.log(process.argv, postgres)"],
]

/** Copies of this project's rules in which to plant. */
const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true })
})

/** The rules that the real linter reports, by file, with our configuration and the flags of `npm run lint`. */
function lint(plants: (Source | Plant)[]): Map<string, string[]> {
  const folder = mkdtempSync(join(tmpdir(), 'runlane-purity-'))
  folders.push(folder)
  for (const name of ['.oxlintrc.json', 'tsconfig.json', 'package.json']) {
    copyFileSync(join(ROOT, name), join(folder, name))
  }
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  for (const [file, code] of plants) {
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    writeFileSync(join(folder, file), `${code}\n`)
  }
  const oxlint = join(ROOT, 'node_modules/.bin/oxlint')
  // Folders by name: it would follow the link to node_modules.
  const flags = ['--deny-warnings', '-f', 'json', 'machines', 'src', 'test']
  const run = spawnSync(oxlint, flags, { cwd: folder, encoding: 'utf8' })
  const found = new Map<string, string[]>()
  const report = JSON.parse(run.stdout) as { diagnostics: { filename: string; code: string }[] }
  for (const { filename, code } of report.diagnostics) {
    found.set(filename, [...(found.get(filename) ?? []), code])
  }
  return found
}

// Allowed and refused files go apart where they share a name.
const allowed = lint(ALLOWED)
const refused = lint([...ALLOWED, ...IN_A_CHART, ...IN_THE_LAYERS])

describe('the linter refuses, in a chart,', () => {
  test.each(IN_A_CHART)('%s: %s', (file, _code, rule) => {
    expect(refused.get(file)).toContain(rule)
  })
})

describe('the linter refuses, across layers,', () => {
  test.each(IN_THE_LAYERS)('%s: %s', (file, _code, rule) => {
    expect(refused.get(file)).toContain(rule)
  })
})

test('the linter has nothing against files that keep the rules', () => {
  expect(Object.fromEntries(allowed)).toEqual({})
})
