import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, type GenerateKeyPairResult, type JWK } from 'jose'

/** A local issuer's list of public keys over HTTP. */
export type JwksServer = {
  readonly url: string
  /** Requests so far. */
  readonly asked: () => number
  /** What it lists from now on. */
  publish(keys: readonly JWK[]): void
  /** Answers in another way from now on, until keys are published again. */
  answer(how: (response: ServerResponse) => void): void
  close(): Promise<void>
}

/** `port`: one where a server has been before. */
export const startJwksServer = async (keys: readonly JWK[] = [], port = 0): Promise<JwksServer> => {
  let count = 0
  let how: (response: ServerResponse) => void = () => {}
  const publish = (published: readonly JWK[]): void => {
    how = (response) =>
      response
        .setHeader('content-type', 'application/json')
        .end(JSON.stringify({ keys: published }))
  }
  publish(keys)
  const server = createServer((_request, response) => {
    count += 1
    how(response)
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`,
    asked: () => count,
    publish,
    answer: (other) => void (how = other),
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A public key as issuers list it. */
export const published = async (
  { publicKey }: GenerateKeyPairResult,
  kid: string | undefined,
  alg: string,
): Promise<JWK> => ({
  ...(await exportJWK(publicKey)),
  ...(kid === undefined ? {} : { kid }),
  alg,
  use: 'sig',
})
