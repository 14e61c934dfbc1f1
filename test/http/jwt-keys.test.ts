import { describe, expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { type JwksServer, published, startJwksServer } from '../support/jwks-server.ts'
import { bySecretKey, SECRET, signed } from '../support/jwt.ts'
import {
  expectKnown,
  expectUnknown,
  foreign,
  issuerOf,
  KEYS,
  keyPair,
  rsa,
  serviceWith,
  whoIs,
} from './jwt-setup.ts'
import { expectProblem } from './setup.ts'

const jwks = await issuerOf(KEYS)
const byKeys = await serviceWith({ RUNLANE_JWKS_URL: jwks.url })

describe('published keys', () => {
  test('a new key is found within seconds, and one that is withdrawn is not', async () => {
    const next = await keyPair('RS256')
    const token = await signed(next.privateKey, { alg: 'RS256', kid: 'rsa-2' })
    await expectKnown(byKeys, await signed(rsa.privateKey, { alg: 'RS256', kid: 'rsa-1' }))
    jwks.publish([await published(next, 'rsa-2', 'RS256')])

    await eventually(async () => (await whoIs(byKeys, token)).status === 200)

    await expectUnknown(byKeys, await signed(rsa.privateKey, { alg: 'RS256', kid: 'rsa-1' }))
  })

  test('names of keys that nobody knows do not make the service ask again and again', async () => {
    const before = jwks.asked()
    for (let nth = 0; nth < 50; nth += 1)
      await expectUnknown(
        byKeys,
        await signed(foreign.privateKey, { alg: 'RS256', kid: `no-${nth}` }),
      )
    expect(jwks.asked() - before).toBeLessThanOrEqual(2)
  })

  test('a JWT that names no key may be signed by any that fits', async () => {
    const next = await keyPair('RS256')
    const listener = await issuerOf([
      await published(rsa, 'rsa-1', 'RS256'),
      await published(next, 'rsa-2', 'RS256'),
    ])
    const service = await serviceWith({ RUNLANE_JWKS_URL: listener.url })

    for (const { privateKey } of [rsa, next])
      await expectKnown(service, await signed(privateKey, { alg: 'RS256' }))
    await expectUnknown(service, await signed(foreign.privateKey, { alg: 'RS256' }))
  })
})

describe('keys that cannot be had', () => {
  const token = signed(rsa.privateKey, { alg: 'RS256', kid: 'rsa-1' })

  test('are 503, whatever is wrong with them; API tokens and secrets go on; good keys are found again', async () => {
    const listener = await issuerOf()
    const service = await serviceWith({
      RUNLANE_JWKS_URL: listener.url,
      RUNLANE_JWT_SECRET: SECRET,
    })
    const broken: [string, Parameters<JwksServer['answer']>[0]][] = [
      ['a 500', (response) => response.writeHead(500).end('no')],
      ['a 404', (response) => response.writeHead(404).end('{}')],
      ['a redirect', (response) => response.writeHead(302, { location: jwks.url }).end()],
      ['a page', (response) => response.end('<html>')],
      ['no set of keys', (response) => response.end('{"keys":7}')],
      ['null', (response) => response.end('null')],
      ['half an answer', (response) => response.writeHead(200).end('{"keys":[')],
      ['a broken connection', (response) => response.destroy()],
    ]
    for (const [name, how] of broken) {
      listener.answer(how)
      const response = await whoIs(service, await token)
      expect({ name, status: response.status }).toEqual({ name, status: 503 })
      expectProblem(response, { status: 503, code: 'keys_unavailable' })
      expect(response.headers.get('retry-after')).toMatch(/^\d+$/)
    }
    expect((await whoIs(service, service.token)).status).toBe(200)
    await expectKnown(service, await bySecretKey())
    await expectUnknown(service, 'a.b.c')

    listener.publish(KEYS)
    await expectKnown(service, await token)
    expect(service.stderr()).not.toContain('"level":"error"')
  })

  test('are 503 when nobody is there, or nobody answers in time', async () => {
    const gone = await startJwksServer()
    await gone.close()
    const service = await serviceWith({ RUNLANE_JWKS_URL: gone.url })
    expectProblem(await whoIs(service, await token), { status: 503, code: 'keys_unavailable' })

    const silent = await issuerOf([], Number(new URL(gone.url).port))
    silent.answer(() => {})
    // One question is asked for all that wait for its answer.
    const responses = await Promise.all(
      [token, token, token].map(async (one) => whoIs(service, await one)),
    )
    for (const response of responses)
      expectProblem(response, { status: 503, code: 'keys_unavailable' })
    expect(silent.asked()).toBe(1)
  })
})
