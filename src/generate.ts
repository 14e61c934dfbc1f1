/** Writes what is made from the code: the README's tables and the schema as SQL (`npm run generate`; `--check` compares). */
import { readFile, writeFile } from 'node:fs/promises'
import process from 'node:process'
import { metricsTable } from '../otel/metrics.ts'
import { configTable } from './config.ts'
import { routeTable } from './http/contract/all.ts'
import { gateTable } from './runtime/diagnosis/gates.ts'
import { dumpSchema } from './store/schema.ts'

const README = new URL('../README.md', import.meta.url)
const SCHEMA = new URL('./store/schema.sql', import.meta.url)
const TABLES: Record<string, string> = {
  configuration: configTable(),
  gates: gateTable(),
  metrics: metricsTable(),
  routes: routeTable(),
}

await generate(README, withTables)
await generate(SCHEMA, dumpSchema)

async function generate(
  file: URL,
  make: (before: string) => string | Promise<string>,
): Promise<void> {
  const before = await readFile(file, 'utf8').catch(() => '')
  const after = await make(before)
  if (after === before) return
  if (!process.argv.includes('--check')) return writeFile(file, after)
  process.stderr.write(`${file.pathname.split('/').at(-1)} is stale: npm run generate\n`)
  process.exitCode = 1
}

function withTables(before: string): string {
  return Object.entries(TABLES).reduce((text, [name, table]) => {
    const marks = new RegExp(`(<!-- ${name} -->\n)[^]*?(<!-- /${name} -->)`)
    if (!marks.test(text)) throw new Error(`README.md has no place for the table ${name}`)
    return text.replace(marks, (_all, open: string, close: string) => `${open}\n${table}\n${close}`)
  }, before)
}
