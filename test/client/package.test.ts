import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'

const ROOT = resolve(import.meta.dirname, '../..')

/** Another project that has this package linked, and prints which modules its program loads. */
const SCRIPT = `
  import { registerHooks } from 'node:module'
  const loaded = []
  registerHooks({ load: (url, context, next) => { loaded.push(url); return next(url, context) } })
  const { createClient, verifyWebhook } = await import('runlane/client')
  createClient({ url: 'http://127.0.0.1:7420' })
  process.stdout.write(JSON.stringify({ loaded, made: typeof verifyWebhook }))
`

test('a linked project imports runlane/client, and nothing of the service with it', () => {
  const project = mkdtempSync(join(tmpdir(), 'runlane-consumer-'))
  onTestFinished(() => rmSync(project, { recursive: true, force: true }))
  mkdirSync(join(project, 'node_modules'))
  symlinkSync(ROOT, join(project, 'node_modules/runlane'))
  writeFileSync(join(project, 'main.mjs'), SCRIPT)

  const { stdout, stderr, status } = spawnSync(join(ROOT, 'node_modules/.bin/node'), ['main.mjs'], {
    cwd: project,
    encoding: 'utf8',
  })
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  const { loaded, made } = JSON.parse(stdout) as { loaded: string[]; made: string }
  expect(made).toBe('function')
  const folders = loaded.map((url) => {
    const [, dependency] =
      /\/node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*\/node_modules\/)/.exec(url) ?? []
    return dependency ?? /\/src\/(\w+)/.exec(url)?.[1]
  })
  const allowed = ['@stablelib/base64', 'eventsource-parser', 'fast-sha256', 'standardwebhooks']
  expect(new Set(folders)).toEqual(new Set(['client', ...allowed]))
})
