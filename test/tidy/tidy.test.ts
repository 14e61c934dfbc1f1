import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const SKIPPED = new Set(['node_modules', '.git', '.runlane', 'coverage'])

interface File {
  path: string
  text: string
}

/** What linters cannot hold. Each test lists the offenders, so that the failure names them. */
const files: File[] = readdirSync(ROOT, { withFileTypes: true })
  .filter((entry) => !SKIPPED.has(entry.name))
  .flatMap((entry) => {
    if (entry.isFile()) return [join(ROOT, entry.name)]
    return readdirSync(join(ROOT, entry.name), { withFileTypes: true, recursive: true })
      .filter((inner) => inner.isFile())
      .map((inner) => join(inner.parentPath, inner.name))
  })
  .filter((path) => /\.(ts|js|css|sql|md)$/.test(path))
  .map((path) => ({ path: relative(ROOT, path), text: readFileSync(path, 'utf8') }))

const inside = (...folders: string[]): File[] =>
  files.filter(({ path }) => folders.some((folder) => path.startsWith(`${folder}/`)))

const offenders = (among: File[], bad: (file: File) => boolean): string[] =>
  among.filter(bad).map(({ path }) => path)

/** `schema.sql` is made from the migrations. */
const code = inside('src', 'machines').filter(({ path }) => !/\.md$|\/schema\.sql$/.test(path))

test('no file is longer than 300 lines', () => {
  expect(offenders(code, ({ text }) => text.trimEnd().split('\n').length > 300)).toEqual([])
})

test('nothing is left to do', () => {
  const words = /\b(TODO|FIXME|XXX)\b/
  expect(offenders(inside('src', 'machines', 'otel'), ({ text }) => words.test(text))).toEqual([])
})

test('no chart silences the linter that keeps it pure', () => {
  const silenced = /(ox|es)lint-disable|@ts-(ignore|expect-error|nocheck)/
  expect(offenders(inside('machines'), ({ text }) => silenced.test(text))).toEqual([])
})

/** A tagged template, or a string that begins as a statement does; comments may quote SQL. */
const saysSql = ({ text }: Pick<File, 'text'>): boolean => {
  const uncommented = text.replaceAll(/\/\*.*?\*\/|^\s*\/\/.*?$/gms, '')
  const statement =
    /(select\s[^'"`]*\sfrom\s|insert\s+into\s|update\s+[\w.]+\s+set\s|delete\s+from\s|(create|alter|drop)\s+(table|index|function|schema)\s|with\s+\w+\s+as\s*\()/
  return (
    /\bsql(<[^`]*>)?`/.test(uncommented) ||
    new RegExp(`['"\`]\\s*${statement.source}`, 'i').test(uncommented)
  )
}

describe('SQL', () => {
  test('is written in src/store alone', () => {
    const others = code.filter(({ path }) => !path.startsWith('src/store/') && path.endsWith('.ts'))
    expect(offenders(others, saysSql)).toEqual([])
  })

  test.each([
    ['await sql`select 1`', true],
    ['await sql<{ id: string }[]>`select 1`', true],
    ["query('select id from runs')", true],
    ['query("INSERT INTO runs values (1)")', true],
    ['query(`\n  update runs set status = 1`)', true],
    ["query('with due as (select 1) select 2')", true],
    ['/** `select … from runs` in prose */', false],
    ['// `select id from runs` in prose', false],
    ["label('select an agent')", false],
    ["label('update settings')", false],
  ])('is told from words: %s', (text, expected) => {
    expect(saysSql({ text })).toBe(expected)
  })
})

test('no document names a path of the machine it was written on', () => {
  const documents = files.filter(({ path }) => path.endsWith('.md'))
  expect(documents.length).toBeGreaterThan(0)
  const machinePath = /(?<![\w.:/-])\/(work|root|home)\//
  expect(offenders(documents, ({ text }) => machinePath.test(text))).toEqual([])
})
