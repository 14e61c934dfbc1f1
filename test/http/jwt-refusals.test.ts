import { expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { bySecretKey, type Claims, inSeconds, SECRET, signed } from '../support/jwt.ts'
import { expectKnown, foreign, issuerOf, KEYS, rsa, serviceWith, whoIs } from './jwt-setup.ts'
import { expectProblem } from './setup.ts'

const ISSUER = 'https://issuer.test/'
const ours = { iss: ISSUER, aud: ['other', 'runlane'] }
const jwks = await issuerOf(KEYS)
const env = { RUNLANE_JWT_ISSUER: ISSUER, RUNLANE_JWT_AUDIENCE: 'runlane' }
const [strict, byKeys] = await Promise.all([
  serviceWith({ ...env, RUNLANE_JWT_SECRET: SECRET }),
  serviceWith({ ...env, RUNLANE_JWKS_URL: jwks.url }),
])
const byRsa = (claims: Claims, kid = 'rsa-1') =>
  signed(rsa.privateKey, { alg: 'RS256', kid }, { ...ours, ...claims })

test('a JWT of the issuer and for the audience that are set counts', async () => {
  await expectKnown(strict, await bySecretKey(ours))
  await expectKnown(strict, await bySecretKey({ ...ours, aud: 'runlane' }))
  await expectKnown(byKeys, await byRsa({}))
})

const refused: [check: string, claims: Claims, says: string][] = [
  ['exp', { exp: inSeconds(-60) }, 'has expired'],
  ['exp', { exp: 'hush' }, 'time of expiry'],
  ['nbf', { nbf: inSeconds(600) }, 'not valid yet'],
  ['iss', { iss: 'https://hush.test/' }, 'another issuer'],
  ['iss', { iss: undefined }, 'another issuer'],
  ['aud', { aud: 'hush' }, 'another audience'],
  ['aud', { aud: undefined }, 'another audience'],
  ['aud', { aud: [] }, 'another audience'],
  ['sub', { sub: undefined }, 'does not name its bearer'],
  ['sub', { sub: 'hush\n' }, 'does not name its bearer'],
  ['role', { role: 'ROLE_HUSH' }, 'names none of ROLE_VIEWER'],
]

test.each(refused)(
  'a JWT whose %s does not hold is refused, and told so: %j',
  async (check, claims, says) => {
    const status = check === 'role' ? 403 : 401
    const mine = [strict, await bySecretKey({ ...ours, ...claims })] as const
    const other = [byKeys, await byRsa(claims)] as const
    for (const [service, token] of [mine, other]) {
      const response = await whoIs(service, token)
      expectProblem(response, { status, code: status === 401 ? 'unauthorized' : 'forbidden' })
      expect(response.body.detail).toContain(says)
      // Neither what it said nor what was expected.
      expect(JSON.stringify(response.body)).not.toMatch(/hush|issuer\.test|eyJ/i)
    }
  },
)

test('a JWT that cannot be told to be ours is told nothing of its claims, but which check has failed', async () => {
  const expired = { ...ours, exp: inSeconds(-600), iss: 'x' }
  const [head = '', claims = ''] = (await bySecretKey(expired)).split('.')
  const foreignBy = (kid: string) => signed(foreign.privateKey, { alg: 'RS256', kid }, expired)
  const forged = [
    [strict, `${head}.${claims}.AAAA`, 'signature that is not right'],
    [byKeys, await foreignBy('rsa-1'), 'signature that is not right'],
    [byKeys, await foreignBy('no'), 'key that is not known'],
    [byKeys, await bySecretKey(expired), 'algorithm that is not accepted'],
    [byKeys, 'a.b.c', 'not well-formed'],
  ] as const
  for (const [service, token, says] of forged) {
    const response = await whoIs(service, token)
    expectProblem(response, { status: 401, code: 'unauthorized' })
    expect(response.body.detail).toContain(says)
  }
})

test('the log has the same reason, once for many, and never the token', async () => {
  const service = await serviceWith({ RUNLANE_JWT_SECRET: SECRET })
  const token = await bySecretKey({ sub: 'hush', exp: inSeconds(-60) })
  const client = api({ url: service.url, token })
  for (let nth = 0; nth < 5; nth += 1) await client.get('/runs', { 'x-request-id': `asked-${nth}` })
  await whoIs(service, await bySecretKey({ sub: 'hush', role: 'none' }))

  const lines = await eventually(() => {
    const all = service.stderr().trim().split('\n')
    const found = all.map((line) => JSON.parse(line) as Record<string, unknown>)
    const told = found.filter(({ message }) => message === 'a JWT was refused')
    return told.length >= 2 && told
  })

  expect(lines).toMatchObject([
    { level: 'info', check: 'exp', request_id: 'asked-0', times: 1 },
    { level: 'info', check: 'role', times: 1 },
  ])
  expect(service.stderr()).not.toContain('hush')
  expect(service.stderr()).not.toContain(token.slice(0, 20))
})
