import { type FSWatcher, watch } from 'node:fs'
import { dirname } from 'node:path'

/** Editors write in several steps: what they do within this time is one change. */
const SETTLE_MS = 150

/** Calls back when something in the folder has changed, or when the folder has come to be. Answers how to stop. */
export function watchFolder(folder: string, onChange: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | null = null
  let watcher: FSWatcher | null = null
  let parent: FSWatcher | null = null
  const changed = (): void => {
    if (timer) clearTimeout(timer)
    timer = setTimeout(onChange, SETTLE_MS)
  }
  const begin = (): boolean => {
    try {
      watcher = watch(folder, { recursive: true }, changed)
      watcher.on('error', () => {})
      return true
    } catch {
      return false
    }
  }
  if (!begin()) {
    parent = watch(dirname(folder), () => {
      if (watcher || !begin()) return
      parent?.close()
      changed()
    })
  }
  return () => {
    if (timer) clearTimeout(timer)
    watcher?.close()
    parent?.close()
  }
}
