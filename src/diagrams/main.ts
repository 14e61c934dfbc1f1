/**
 * `npm run diagrams` writes the diagrams of all machines; with `--check` it writes nothing and
 * exits with 1 if one of them is stale.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { renderDiagrams } from './files.ts'

const folder = new URL('../../machines/', import.meta.url)

const isStale = async (name: string, text: string): Promise<boolean> => {
  try {
    return (await readFile(new URL(name, folder), 'utf8')) !== text
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return true
    throw error
  }
}

const checkOnly = process.argv.includes('--check')
const stale: string[] = []
for (const [name, text] of await renderDiagrams()) {
  if (!(await isStale(name, text))) continue
  stale.push(`machines/${name}`)
  if (!checkOnly) await writeFile(new URL(name, folder), text)
}

if (stale.length === 0) console.log('All diagrams are current.')
else if (checkOnly) {
  console.error(`Stale: ${stale.join(', ')}. Run \`npm run diagrams\`.`)
  process.exitCode = 1
} else console.log(`Wrote ${stale.join(', ')}.`)
