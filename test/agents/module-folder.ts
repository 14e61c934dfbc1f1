import { mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll } from 'vitest'

/** A folder of agent modules outside of the checkout, without any `node_modules` above it; removed after the tests. */
export const moduleFolder = (files: Readonly<Record<string, string>>): ModuleFolder => {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'runlane-agents-')))
  afterAll(() => rmSync(path, { recursive: true, force: true }))
  const write: ModuleFolder['write'] = (name, text) => {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), text)
  }
  for (const [name, text] of Object.entries(files)) write(name, text)
  return {
    path,
    write,
    replace: (name, text) => {
      write(`.${name}.tmp`, text)
      renameSync(join(path, `.${name}.tmp`), join(path, name))
    },
    remove: (name) => rmSync(join(path, name)),
  }
}

export type ModuleFolder = {
  readonly path: string
  /** Writes a file in place. */
  write(name: string, text: string): void
  /** Writes it beside and moves it over, as many editors do. */
  replace(name: string, text: string): void
  remove(name: string): void
}

/** The text of a module whose agent returns what this expression is. */
export const agentText = (name: string, answer: string, before = ''): string =>
  `import { defineAgent } from 'runlane'\n${before}\nexport default defineAgent({ name: '${name}', run: async (ctx) => ${answer} })\n`
