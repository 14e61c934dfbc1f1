import { createHmac } from 'node:crypto'
import { exportSPKI, SignJWT, UnsecuredJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { published } from '../support/jwks-server.ts'
import { bySecretKey, type Claims, inSeconds, SECRET, secretKey, signed } from '../support/jwt.ts'
import {
  ec,
  ed,
  expectKnown,
  expectUnknown,
  foreign,
  issuerOf,
  KEYS,
  rsa,
  serviceWith,
  whoIs,
} from './jwt-setup.ts'
import { expectProblem, scripted } from './setup.ts'

const jwks = await issuerOf(KEYS)
const [bySecret, byKeys, byBoth] = await Promise.all([
  serviceWith({ RUNLANE_JWT_SECRET: SECRET }),
  serviceWith({ RUNLANE_JWKS_URL: jwks.url }),
  serviceWith({ RUNLANE_JWT_SECRET: SECRET, RUNLANE_JWKS_URL: jwks.url }),
])

test.each(['HS256', 'HS384', 'HS512'])('a JWT that the secret has signed with %s', async (alg) => {
  await expectKnown(bySecret, await signed(secretKey, { alg }))
  await expectKnown(byBoth, await signed(secretKey, { alg }))
  await expectUnknown(byKeys, await signed(secretKey, { alg }))
})

test.each([
  ['RS256', rsa, 'rsa-1'],
  ['ES256', ec, 'ec-1'],
  ['EdDSA', ed, 'ed-1'],
] as const)('a JWT that a published key has signed with %s', async (alg, { privateKey }, kid) => {
  const token = await signed(privateKey, { alg, kid })
  await expectKnown(byKeys, token)
  await expectKnown(byBoth, token)
  await expectUnknown(bySecret, token)
})

describe('claims', () => {
  test.each<[string, Claims, string]>([
    ['role', { role: 'ROLE_VIEWER' }, 'viewer'],
    ['a role in a list', { role: ['ROLE_VIEWER'] }, 'viewer'],
    ['roles', { role: undefined, roles: ['ROLE_SERVICE'] }, 'service'],
    ['roles that are a text', { role: undefined, roles: 'ROLE_OPERATOR' }, 'operator'],
    ['several roles: the greatest', { roles: ['ROLE_VIEWER', 'ROLE_ADMIN', 'OTHER'] }, 'admin'],
    ['role and roles: the greatest', { role: 'ROLE_SERVICE', roles: ['ROLE_VIEWER'] }, 'service'],
    ['an end that has just passed', { exp: inSeconds(-10) }, 'operator'],
    ['no end', { exp: undefined }, 'operator'],
    ['a clock that is a little behind', { nbf: inSeconds(10) }, 'operator'],
  ])('%s', async (_name, claims, role) => {
    await expectKnown(bySecret, await bySecretKey(claims), role)
  })

  test.each<[string, unknown]>([
    ['none', undefined],
    ['another', 'ROLE_ROOT'],
    ['in small letters', 'role_admin'],
    ['a part of a text', 'ROLE_ADMIN ROLE_VIEWER'],
    ['an object', { ROLE_ADMIN: true }],
    ['a list in a list', [['ROLE_ADMIN']]],
    ['null', null],
  ])('a role that is %s is forbidden', async (_name, role) => {
    const response = await whoIs(bySecret, await bySecretKey({ role }))
    expectProblem(response, { status: 403, code: 'forbidden' })
  })

  test.each<[string, Claims]>([
    ['has expired', { exp: inSeconds(-60) }],
    ['is not valid yet', { nbf: inSeconds(600) }],
    ['has an end that is no number', { exp: 'never' }],
    ['names nobody', { sub: undefined }],
    ['names an empty text', { sub: '' }],
    ['names a number', { sub: 7 as unknown as string }],
    ['has a name of 256 characters', { sub: 'x'.repeat(256) }],
    ['has a name with a NUL', { sub: 'ana\0' }],
    ['has a name with a line break', { sub: 'ana\nadmin' }],
    ['has half a character as its name', { sub: '\ud800' }],
  ])('a JWT that %s is none', async (_name, claims) => {
    await expectUnknown(bySecret, await bySecretKey(claims))
  })

  test('a name of any script is kept as it is, for runs as well', async () => {
    const token = await bySecretKey({ sub: 'Łukasz 😀', role: 'ROLE_SERVICE' })
    const run = await api({ url: bySecret.url, token }).createRun(scripted([]))
    expect(run['created_by']).toBe('user:Łukasz 😀')
  })

  test('nobody takes the name of an API token', async () => {
    const token = await bySecretKey({ sub: 'token:admin', role: 'ROLE_SERVICE' })
    expect((await whoIs(bySecret, token)).body.name).toBe('user:token:admin')
  })
})

describe('forgeries', () => {
  const claims = { sub: 'ana', role: 'ROLE_ADMIN', exp: inSeconds(600) }
  const base64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const services = [
    ['a secret', bySecret],
    ['keys', byKeys],
    ['both', byBoth],
  ] as const

  describe.each(services)('where the service has %s', (_name, service) => {
    test('the algorithm none', async () => {
      await expectUnknown(service, new UnsecuredJWT(claims).encode())
      for (const alg of ['None', 'NONE', 'nOnE'])
        await expectUnknown(service, `${base64({ alg })}.${base64(claims)}.`)
    })

    test('a public key as the secret of an HMAC', async () => {
      const texts = [
        await exportSPKI(rsa.publicKey),
        JSON.stringify(KEYS[0]),
        JSON.stringify({ keys: KEYS }),
        KEYS[0]?.n ?? '',
      ]
      for (const text of texts) {
        const head = `${base64({ alg: 'HS256', kid: 'rsa-1' })}.${base64(claims)}`
        const mac = createHmac('sha256', text).update(head).digest('base64url')
        await expectUnknown(service, `${head}.${mac}`)
      }
    })

    test('a key of its own, under the name of a published one or in its header', async () => {
      const jwk = await published(foreign, 'rsa-1', 'RS256')
      const plain = new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: 'rsa-1' })
      await expectUnknown(service, await plain.sign(foreign.privateKey))
      const carrying = new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: 'rsa-1', jwk })
      await expectUnknown(service, await carrying.sign(foreign.privateKey))
      const other = await issuerOf([jwk])
      const pointing = new SignJWT(claims).setProtectedHeader({
        alg: 'RS256',
        kid: 'rsa-1',
        jku: other.url,
      })
      await expectUnknown(service, await pointing.sign(foreign.privateKey))
      expect(other.asked()).toBe(0)
    })

    test('claims that were changed after signing', async () => {
      const tokens = [
        await bySecretKey(),
        await signed(rsa.privateKey, { alg: 'RS256', kid: 'rsa-1' }),
      ]
      for (const token of tokens) {
        const [head, , signature] = token.split('.')
        await expectUnknown(service, `${head}.${base64(claims)}.${signature}`)
        await expectUnknown(service, `${head}.${base64(claims)}.`)
      }
    })

    test('what only looks like a JWT', async () => {
      for (const token of [
        'a.b.c',
        '..',
        'eyJ.eyJ.',
        `${base64({ alg: 'HS256', crit: ['x'], x: 1 })}.e30.AA`,
      ])
        await expectUnknown(service, token)
    })
  })

  test('an RSA key has no say where only a secret is set', async () => {
    await expectUnknown(bySecret, await signed(rsa.privateKey, { alg: 'RS256', kid: 'rsa-1' }))
  })
})
