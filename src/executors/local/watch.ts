import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** How often the folder is looked at. Editors write in several steps: what two looks find alike is a change. */
const LOOK_MS = 200

/**
 * Calls back when a file in the folder has changed, come or gone. Answers how to stop. It looks instead of being told:
 * `fs.watch` loses a file that an editor has moved another over, a folder that was made again, and what changes on the
 * other side of a container's mount.
 */
export function watchFolder(folder: string, onChange: () => void): () => void {
  const stopped = new AbortController()
  follow(folder, onChange, stopped.signal).catch(() => {})
  return () => stopped.abort()
}

async function follow(folder: string, onChange: () => void, signal: AbortSignal): Promise<never> {
  let known = await stateOf(folder)
  let before = known
  for (;;) {
    await delay(LOOK_MS, undefined, { signal, ref: false })
    const now = await stateOf(folder)
    if (now === before && now !== known) {
      known = now
      onChange()
    }
    before = now
  }
}

/** Every file below the folder with its time and size; what is not there, or cannot be read, has none. */
async function stateOf(folder: string): Promise<string> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  const states = entries
    .filter(({ name }) => name !== 'node_modules' && !name.startsWith('.'))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(async (entry) => {
      const path = join(folder, entry.name)
      if (entry.isDirectory()) return stateOf(path)
      const { mtimeMs, size } = await stat(path).catch(() => ({ mtimeMs: 0, size: 0 }))
      return `${path} ${mtimeMs} ${size}\n`
    })
  return (await Promise.all(states)).join('')
}
