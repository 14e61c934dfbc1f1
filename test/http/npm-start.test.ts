import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { eventually } from '../support/eventually.ts'

test('a SIGTERM for npm start drains the service, which is gone when npm is', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'runlane-test-'))
  const { PATH = '', HOME = '' } = process.env
  const npm = spawn('npm', ['start'], {
    env: { PATH, HOME, PORT: '0', RUNLANE_DATA_DIR: dataDir },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [npm.stdout, npm.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  const exit = once(npm, 'exit')
  onTestFinished(() => {
    npm.kill('SIGKILL')
    rmSync(dataDir, { recursive: true })
  })
  const url = await eventually(() => /listening on (http:\/\/\S+)/.exec(output)?.[1] ?? false, {
    timeoutMs: 20_000,
  })
  expect((await fetch(`${url}/readyz`)).status).toBe(200)

  npm.kill('SIGTERM')

  expect(await exit).toEqual([0, null])
  expect(output).toContain('the node has drained')
  await expect(fetch(`${url}/healthz`)).rejects.toThrow('fetch failed')
})
