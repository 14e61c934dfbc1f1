import { spawn } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { ADMIN_TOKEN, startService } from '../support/service.ts'
import { expectProblem, scripted, serve } from './setup.ts'

const { service, createRun, waitForRun, get } = await serve('pglite')
const { run_id, conversation_id } = await createRun(scripted([{ tool: 't' }]))
await waitForRun(run_id)

const routes: [string, string][] = [
  ['POST', '/runs'],
  ['POST', '/runs/batch'],
  ['GET', '/runs'],
  ['GET', `/runs/${run_id}`],
  ['GET', `/runs/${run_id}/events`],
  ['GET', `/runs/${run_id}/checkpoints`],
  ['GET', `/runs/${run_id}/tool-results`],
  ['GET', `/runs/${run_id}/statechart`],
  ['GET', `/runs/${run_id}/agent-events`],
  ['POST', `/runs/${run_id}/cancel`],
  ['POST', `/runs/${run_id}/respond`],
  ['POST', `/agent-runs/${run_id}/resume`],
  ['GET', `/conversations/${conversation_id}/agent-events`],
  ['GET', '/agent-events'],
  ['GET', '/machines'],
  ['GET', '/machines/run'],
  ['GET', '/machines/run.svg'],
  ['GET', '/machines/run.mmd'],
  ['GET', '/metrics'],
  ['DELETE', `/runs/${run_id}`],
  ['GET', '/not/a/route'],
]

const wrong: [string, string | undefined][] = [
  ['none', undefined],
  ['an empty one', ''],
  ['Bearer without a token', 'Bearer '],
  ['a wrong token', `Bearer ${ADMIN_TOKEN}x`],
  ['the beginning of the token', `Bearer ${ADMIN_TOKEN.slice(0, -1)}`],
  ['the token in capitals', `Bearer ${ADMIN_TOKEN.toUpperCase()}`],
  ['another scheme', `Basic ${Buffer.from(`admin:${ADMIN_TOKEN}`).toString('base64')}`],
  ['the token alone', ADMIN_TOKEN],
  ['two tokens', `Bearer ${ADMIN_TOKEN} ${ADMIN_TOKEN}`],
]

describe.each(wrong)('with %s as authorization', (_name, authorization) => {
  test.each(routes)('%s %s is 401', async (method, path) => {
    const response = await api({ url: service.url }).request(method, path, {
      ...(method === 'POST' ? { body: {} } : {}),
      ...(authorization === undefined ? {} : { headers: { authorization } }),
    })

    expectProblem(response, { status: 401, code: 'unauthorized' })
    expect(response.headers.get('www-authenticate')).toMatch(/^Bearer/)
  })
})

test('a token in the query or in a cookie is none', async () => {
  const anonymous = api({ url: service.url })
  const inQuery = await anonymous.get(`/runs?access_token=${ADMIN_TOKEN}`)
  expectProblem(inQuery, { status: 401, code: 'unauthorized' })
  const inCookie = await anonymous.get('/runs', { cookie: `token=${ADMIN_TOKEN}` })
  expectProblem(inCookie, { status: 401, code: 'unauthorized' })
})

test('a refused post writes nothing', async () => {
  const response = await api({ url: service.url, token: 'wrong' }).post('/runs', scripted([]))

  expectProblem(response, { status: 401, code: 'unauthorized' })
  expect((await get('/runs')).body.runs).toHaveLength(1)
})

test('health checks, the console page and the files it loads answer without a token', async () => {
  const page = await (await fetch(`${service.url}/`)).text()
  const files = [...page.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path = '']) => path)
  expect(files.length).toBeGreaterThan(0)

  for (const path of ['/healthz', '/readyz', '/', ...files]) {
    const response = await fetch(service.url + path)
    expect({ path, status: response.status }).toEqual({ path, status: 200 })
    expect(await response.text()).not.toContain(run_id)
  }
})

test('the scheme is read in any case', async () => {
  const response = await fetch(`${service.url}/runs`, {
    headers: { authorization: `bearer ${ADMIN_TOKEN}` },
  })

  expect(response.status).toBe(200)
})

test('a first start makes a token that only its owner can read, and later starts print it again', async () => {
  const unset = { env: { RUNLANE_ADMIN_TOKEN: '' } }
  const first = await startService(unset)
  onTestFinished(() => void first.kill())
  const [, token = ''] = /^ +token +(\S+)$/m.exec(first.stdout()) ?? []
  expect(token).toMatch(/^\S{20,}$/)

  const path = join(first.dataDir, 'admin-token')
  expect((statSync(path).mode & 0o777).toString(8)).toBe('600')
  expect((statSync(first.dataDir).mode & 0o077).toString(8)).toBe('0')
  expect(readFileSync(path, 'utf8').trim()).toBe(token)
  expect((await api({ url: first.url, token }).get('/runs')).status).toBe(200)
  const guess = await api({ url: first.url, token: ADMIN_TOKEN }).get('/runs')
  expectProblem(guess, { status: 401, code: 'unauthorized' })

  const second = await first.restart()
  onTestFinished(() => void second.kill())
  expect(second.stdout()).toMatch(new RegExp(`^ +token +${token}$`, 'm'))
  expect((await api({ url: second.url, token }).get('/runs')).status).toBe(200)
})

test('a configured token is not printed', () => {
  expect(service.stdout()).toContain('$RUNLANE_ADMIN_TOKEN')
  expect(service.stdout() + service.stderr()).not.toContain(ADMIN_TOKEN)
})

/** Runs a line as a newcomer would paste it; the output grows while it runs. */
const bash = (line: string, env: Record<string, string> = {}) => {
  const child = spawn('bash', ['-c', line], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  onTestFinished(() => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid)
    } catch {
      // It has ended by itself.
    }
  })
  return { output: () => output }
}

test.each([
  ['made at first start', '', {}],
  ['configured', ADMIN_TOKEN, { RUNLANE_ADMIN_TOKEN: ADMIN_TOKEN }],
])('the printed lines post a run and watch it, with a token %s', async (_name, token, env) => {
  const started = await startService({ env: { RUNLANE_ADMIN_TOKEN: token } })
  onTestFinished(() => void started.kill())
  const lines = started.stdout().match(/^ +curl .*$/gm) ?? []
  expect(lines).toHaveLength(2)
  const [run = '', watch = ''] = lines

  const watching = bash(watch, env)
  const posted = bash(run, env)

  const created = await eventually(() => JSON.parse(posted.output()))
  expect(created).toMatchObject({ agent: 'scripted', conversation_id: 'demo' })
  await eventually(() => /"to":"completed"/.test(watching.output()), { timeoutMs: 20_000 })
  expect(watching.output()).toContain('"text":"Done."')
})
