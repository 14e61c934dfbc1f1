import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve as absolute } from 'node:path'
import postgres from 'postgres'
import { expect, onTestFinished, test } from 'vitest'
import { freshDatabase } from '../support/fresh-database.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { type ServiceOptions, startService } from '../support/service.ts'

const databaseUrl = await freshDatabase()

/** What a service that must not start says on stderr, and its exit code. */
const refusalOf = async (options: ServiceOptions): Promise<{ code: string; stderr: string }> => {
  const started = await startService(options).catch((error: unknown) => error)
  if (!(started instanceof Error)) {
    await (started as Awaited<ReturnType<typeof startService>>).kill()
    throw new Error('the service started')
  }
  const [, code = '?'] = /^the service ended \((\w+)\)/.exec(started.message) ?? []
  const [, stderr = ''] = /--- stderr\n([^]*?)\n--- stdout/.exec(started.message) ?? []
  return { code, stderr }
}

/** One value that does not fit for every setting there is. */
const wrong: Record<string, string> = {
  HOST: 'not a host',
  PORT: '65536',
  DATABASE_URL: 'mysql://127.0.0.1/db',
  RUNLANE_DATA_DIR: ' padded ',
  RUNLANE_AGENTS: 'agents\r',
  RUNLANE_ADMIN_TOKEN: 's3cr3t',
  RUNLANE_JWT_SECRET: 's3cr3t',
  RUNLANE_JWKS_URL: 'file:///keys',
  RUNLANE_JWT_ISSUER: 'i'.repeat(256),
  RUNLANE_JWT_AUDIENCE: ' padded ',
  RUNLANE_WATCHDOG_REASONING: '30',
  RUNLANE_WATCHDOG_TOOL: 'soon',
  RUNLANE_WATCHDOG_TURN: '-1s',
  RUNLANE_WATCHDOG_EXECUTOR: '0s',
  RUNLANE_WATCHDOG_INTERVAL: '1ms',
  RUNLANE_ORPHAN_GRACE: '30 s',
  RUNLANE_RECONCILE_INTERVAL: '5min',
  RUNLANE_HEARTBEAT_TIMEOUT: 'never',
  RUNLANE_QUEUE_TIMEOUT: '100d',
  RUNLANE_CANCEL_TIMEOUT: '3',
  RUNLANE_LEASE: '10ms',
  RUNLANE_RECOVERY: 'automatic',
  RUNLANE_AUTO_TERMINATE: 'on',
  RUNLANE_SSE_HEARTBEAT: '1ms',
  RUNLANE_PROVIDER_COOLDOWN: 'x',
  RUNLANE_RETENTION: 'forever',
  RUNLANE_CONCURRENCY: '0',
  RUNLANE_BODY_LIMIT: '1gb',
  RUNLANE_MAX_CRASHES: '1.5',
  RUNLANE_WEBHOOK_SECRET: 'whsec_short',
  RUNLANE_WEBHOOK_ALLOW: 'http://127.0.0.1',
  RUNLANE_WEBHOOK_URLS: 'hook/s3cr3t',
  RUNLANE_NODE_ID: 'n'.repeat(256),
}

test('every setting with a value that does not fit is named, each by a line of its own', async () => {
  const { code, stderr } = await refusalOf({ env: wrong })

  expect(code).toBe('1')
  const named = [...stderr.matchAll(/^([A-Z_]+): \S/gm)].map(([, name]) => String(name))
  expect(named.toSorted()).toEqual(Object.keys(wrong).toSorted())
  // A list of what is wrong, not the inside of the program; and secrets are not repeated.
  expect(stderr).not.toMatch(/^\s+at /m)
  for (const secret of ['s3cr3t', 'mysql:', 'file:///', 'whsec_short'])
    expect(stderr).not.toContain(secret)
})

test.each(['PORT', 'DATABASE_URL', 'RUNLANE_LEASE', 'RUNLANE_RECOVERY'])(
  '%s alone stops the start',
  async (name) => {
    const { code, stderr } = await refusalOf({ env: { [name]: wrong[name] ?? '' } })

    expect(code).toBe('1')
    expect(stderr).toMatch(new RegExp(`^runlane cannot start:\n${name}: .*\n$`))
  },
)

test('a private receiver of webhooks that is not allowed stops the start, its path unsaid', async () => {
  const { code, stderr } = await refusalOf({
    env: {
      RUNLANE_WEBHOOK_SECRET: `whsec_${Buffer.alloc(24).toString('base64')}`,
      RUNLANE_WEBHOOK_URLS: 'https://hooks.example.com/,http://10.0.0.7:81/s3cr3t',
    },
  })

  expect(code).toBe('1')
  expect(stderr).toMatch(/^RUNLANE_WEBHOOK_URLS: 10\.0\.0\.7:81 .*RUNLANE_WEBHOOK_ALLOW$/m)
  expect(stderr).not.toContain('s3cr3t')
})

test('a folder of agents that is named and not there stops the start; the default one may be missing', async () => {
  for (const folder of ['/nowhere/agents', 'agnets']) {
    const { code, stderr } = await refusalOf({ env: { RUNLANE_AGENTS: folder } })
    expect(code).toBe('1')
    expect(stderr).toBe(
      `runlane cannot start:\nRUNLANE_AGENTS: there is no folder ${absolute(folder)}\n`,
    )
  }
  expect(existsSync('agents')).toBe(false)
  const service = await startService({ databaseUrl, env: { RUNLANE_AGENTS: '' } })
  expect((await service.kill()).signal).toBe('SIGKILL')
})

test('an unknown RUNLANE_ name stops the start with the nearest known one', async () => {
  const { code, stderr } = await refusalOf({ env: { RUNLANE_CONCURENCY: '5', RUNLANE_XYZZY: '1' } })

  expect(code).toBe('1')
  expect(stderr).toContain(
    'unknown setting RUNLANE_CONCURENCY, did you mean RUNLANE_CONCURRENCY?\n',
  )
  expect(stderr).toMatch(/^unknown setting RUNLANE_XYZZY$/m)
})

test('a data directory that is not there yet is made, for this user alone, with the database in it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'runlane-test-'))
  const dataDir = join(folder, 'not', 'yet')
  const service = await startService({ dataDir })
  onTestFinished(async () => {
    await service.kill()
    rmSync(folder, { recursive: true })
  })

  const { createRun, waitForRun } = api(service)
  const { run_id } = await createRun({ agent: 'scripted', input: { steps: [] } })
  expect((await waitForRun(run_id)).status).toBe('completed')
  expect((statSync(dataDir).mode & 0o077).toString(8)).toBe('0')
})

test('a data directory in use is refused with the process that has it, and left unharmed', async () => {
  const first = await startService()
  onTestFinished(() => void first.kill())

  const { code, stderr } = await refusalOf({ dataDir: first.dataDir })

  expect(code).toBe('1')
  expect(stderr).toContain(`${first.dataDir} is in use by process ${first.pid}`)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect((await api(first).get('/readyz')).status).toBe(200)
  const { createRun, waitForRun } = api(first)
  const { run_id } = await createRun({ agent: 'scripted', input: { steps: [] } })
  expect((await waitForRun(run_id)).status).toBe('completed')
})

test('the lock of a killed process does not stop the next one', async () => {
  const first = await startService()
  await first.kill()

  const second = await first.restart()
  onTestFinished(() => void second.kill())

  expect((await api(second).get('/healthz')).status).toBe(200)
})

test('a data directory that can not be written is named', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'runlane-test-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const dataDir = join(folder, 'file')
  writeFileSync(dataDir, '')

  const { code, stderr } = await refusalOf({ dataDir })

  expect(code).toBe('1')
  expect(stderr).toContain(dataDir)
})

test('a port in use is named, and the node that could not listen gives its runs and lease back', async () => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void taken.close())
  const { port } = taken.address() as AddressInfo

  const { code, stderr } = await refusalOf({ port, databaseUrl })

  expect(code).toBe('1')
  expect(stderr).toContain(`port ${port} of 127.0.0.1 is in use`)
  expect(stderr).not.toMatch(/^\s+at /m)

  const sql = postgres(databaseUrl, { max: 1 })
  const nodes = await sql`select status from runlane.nodes order by epoch desc limit 1`
  await sql.end()
  expect(nodes).toEqual([{ status: 'stopped' }])
})

test('a database that does not answer is named, without its password', async () => {
  const closed = createServer()
  await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve))
  const { port } = closed.address() as AddressInfo
  await new Promise((resolve) => closed.close(resolve))

  const { code, stderr } = await refusalOf({
    databaseUrl: `postgres://runlane:s3cr3t@127.0.0.1:${port}/runlane`,
  })

  expect(code).toBe('1')
  expect(stderr).toContain(`127.0.0.1:${port}`)
  expect(stderr).not.toContain('s3cr3t')
})

test('SIGTERM ends the service with code 0 within ten seconds, its streams told to come back', async () => {
  const service = await startService({ databaseUrl })
  const response = await fetch(`${service.url}/agent-events`, {
    headers: { authorization: `Bearer ${service.token}` },
  })
  let text = ''
  const read = (async () => {
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) text += decoder.decode(chunk, { stream: true })
  })()
  await eventually(() => text.includes(': connected'))

  const asked = performance.now()
  const exit = await service.stop()

  expect(exit).toEqual({ code: 0, signal: null })
  expect(performance.now() - asked).toBeLessThan(10_000)
  await read
  expect(text).toMatch(/event: bye\n(data: .*\n)?retry: \d+\n/)
})
