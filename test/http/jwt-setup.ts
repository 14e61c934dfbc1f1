import { generateKeyPair } from 'jose'
import { afterAll, expect } from 'vitest'
import { type ApiResponse, api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type JwksServer, published, startJwksServer } from '../support/jwks-server.ts'
import { type Service, startService } from '../support/service.ts'
import { expectProblem } from './setup.ts'

export const keyPair = (alg: string) => generateKeyPair(alg, { extractable: true })
export const rsa = await keyPair('RS256')
export const ec = await keyPair('ES256')
export const ed = await keyPair('EdDSA')
export const foreign = await keyPair('RS256')
export const KEYS = [
  await published(rsa, 'rsa-1', 'RS256'),
  await published(ec, 'ec-1', 'ES256'),
  await published(ed, 'ed-1', 'EdDSA'),
]

const databaseUrl = await freshDatabase()
const started: Service[] = []
const issuers: JwksServer[] = []
afterAll(async () => {
  await Promise.all(started.map((service) => service.kill()))
  await Promise.all(issuers.map((issuer) => issuer.close()))
})

/** A service of the file's own database, ended after its tests. */
export const serviceWith = async (env: Record<string, string>): Promise<Service> => {
  const service = await startService({ databaseUrl, env })
  started.push(service)
  return service
}

/** An issuer, ended after the tests of the file. */
export const issuerOf = async (
  ...given: Parameters<typeof startJwksServer>
): Promise<JwksServer> => {
  const issuer = await startJwksServer(...given)
  issuers.push(issuer)
  return issuer
}

export const whoIs = ({ url }: Service, token: string): Promise<ApiResponse> =>
  api({ url, token }).get('/session')
export const expectKnown = async (service: Service, token: string, role = 'operator') => {
  const response = await whoIs(service, token)
  expect({ status: response.status, body: response.body }).toEqual({
    status: 200,
    body: { name: 'user:ana', role },
  })
}
export const expectUnknown = async (service: Service, token: string) =>
  expectProblem(await whoIs(service, token), { status: 401, code: 'unauthorized' })
