import { readdir } from 'node:fs/promises'
import { registerHooks } from 'node:module'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { messageOf } from '../errors.ts'
import { type AgentDefinition, DefinitionError, isAgentDefinition } from './define.ts'

const PACKAGE = new URL('../index.ts', import.meta.url).href

/** Lets `import 'runlane'` mean this very service, wherever the importing module is. Once per thread. */
export function resolveRunlane(): void {
  registerHooks({
    resolve: (specifier, context, next) =>
      specifier === 'runlane' ? { url: PACKAGE, shortCircuit: true } : next(specifier, context),
  })
}

/** The agent modules of a folder, by name; none when it does not exist. Tests and declarations are no agents. */
export async function agentFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  })
  return entries
    .filter((entry) => !entry.isDirectory() && /^[^._].*\.(ts|js|mjs)$/.test(entry.name))
    .filter((entry) => !/\.(d|test|spec|config)\.[a-z]+$/.test(entry.name))
    .map((entry) => join(folder, entry.name))
    .toSorted()
}

/**
 * Imports an agent module: runs its code, so never on the main thread.
 * @throws DefinitionError saying what is wrong with the file
 */
export async function importAgent(file: string): Promise<AgentDefinition> {
  let module: { default?: unknown }
  try {
    module = (await import(pathToFileURL(file).href)) as { default?: unknown }
  } catch (error) {
    throw new DefinitionError(describeImportError(file, error), { cause: error })
  }
  if (isAgentDefinition(module.default)) return module.default
  const found = 'default' in module ? 'is not' : 'is missing; it must be'
  throw new DefinitionError(`its default export ${found} an agent made with defineAgent()`)
}

function describeImportError(file: string, error: unknown): string {
  if (error instanceof DefinitionError) return error.message
  const name = error instanceof Error ? error.name : 'Error'
  const place = placeOf(file, error)
  return `it could not be imported: ${name}: ${messageOf(error)}${place}`
}

/** `(researcher.ts:12)`: the first line of the stack that is in the module's folder. */
function placeOf(file: string, error: unknown): string {
  const stack = error instanceof Error ? String(error.stack) : ''
  const folder = dirname(file) + sep
  for (const line of stack.split('\n')) {
    // A frame names a URL; the head of a TypeScript error is a path alone.
    const [, place = '', number] = /(file:\/\/[^\s:)]+|^\S.*):(\d+)(?=[:)]|$)/.exec(line) ?? []
    const path = place.startsWith('file:') ? fileURLToPath(place) : place
    if (path.startsWith(folder) && !path.includes('node_modules'))
      return ` (${relative(folder, path)}:${number})`
  }
  return ''
}
