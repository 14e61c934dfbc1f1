import { type JWTPayload, SignJWT } from 'jose'

/** What `RUNLANE_JWT_SECRET` is in the services of tests that take JWTs. */
export const SECRET = 'a secret of the test, long enough'
export const secretKey = new TextEncoder().encode(SECRET)

export type Claims = Record<string, unknown>

/** By default of an operator called ana, for ten minutes. */
export const signed = (
  key: Parameters<SignJWT['sign']>[0],
  header: { alg: string; kid?: string },
  claims: Claims = {},
): Promise<string> =>
  new SignJWT({ sub: 'ana', role: 'ROLE_OPERATOR', exp: inSeconds(600), ...claims } as JWTPayload)
    .setProtectedHeader(header)
    .sign(key)
export const bySecretKey = (claims: Claims = {}) => signed(secretKey, { alg: 'HS256' }, claims)
export const inSeconds = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds
