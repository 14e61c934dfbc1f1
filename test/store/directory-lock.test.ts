import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lockDirectory } from '../../src/store/directory-lock.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'runlane-lock-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

test('a directory has one owner at a time', async () => {
  const unlock = await lockDirectory(folder)
  await expect(lockDirectory(folder)).rejects.toThrow(`in use by process ${process.pid}`)
  await unlock()
  const again = await lockDirectory(folder)
  await again()
})

test('a process that lives keeps its directory', async () => {
  const holder = spawn(process.execPath, ['--input-type=module', '-e', HOLD, folder], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await once(holder.stdout, 'data')
  await expect(lockDirectory(folder)).rejects.toThrow(`in use by process ${holder.pid}`)

  holder.kill('SIGKILL')
  await once(holder, 'exit')
  const unlock = await lockDirectory(folder)
  expect(await readdir(folder)).toHaveLength(1)
  await unlock()
})

const HOLD = `
  const { lockDirectory } = await import(${JSON.stringify(new URL('../../src/store/directory-lock.ts', import.meta.url).href)})
  await lockDirectory(process.argv[1])
  console.log('held')
  process.stdin.resume()`

test.runIf(process.platform === 'linux')(
  'a later process under the same pid is not taken for the owner',
  async () => {
    await writeFile(join(folder, `lock-${process.pid}-1-abc`), '')
    const unlock = await lockDirectory(folder)
    await unlock()
  },
)

test('other files of the directory are left alone', async () => {
  for (const name of ['lock', 'lock-', 'lockfile', 'admin-token', 'lock-1-2'])
    await writeFile(join(folder, name), 'kept')
  const unlock = await lockDirectory(folder)
  await unlock()
  expect(await readdir(folder)).toHaveLength(5)
})

test('of many that find a dead owner at once one takes the directory, and no two', async () => {
  let taken = 0
  for (let round = 0; round < 15; round += 1) {
    await writeFile(join(folder, `lock-${2 ** 22 + 1}-7-abc`), '')
    const takers = Array.from({ length: 4 }, () => lockDirectory(folder))
    const outcomes = await Promise.allSettled(takers)
    const owners = outcomes.filter((outcome) => outcome.status === 'fulfilled')
    expect(owners.length, `round ${round}`).toBeLessThanOrEqual(1)
    taken += owners.length
    for (const owner of owners) await owner.value()
  }
  expect(taken).toBeGreaterThan(10)
})
