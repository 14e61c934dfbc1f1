import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify } from 'jose'
import { Refusal } from '../../errors.ts'
import { type Role, ROLES } from '../contract/endpoint.ts'
import type { Identity } from './identity.ts'

export interface JwtOptions {
  secret: string | null
  jwksUrl: string | null
}

/** A verified token: who it names, and until when (milliseconds since 1970) if it says so. */
export type Verified = Identity & { until: number | null }

/**
 * What a key may sign with. Never what the token itself says: `none` and a public key used as an HMAC secret are the
 * classic forgeries.
 */
const SECRET_ALGORITHMS = ['HS256', 'HS384', 'HS512']
const PUBLIC_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
]
/** Clocks of issuers differ a little, in seconds. */
const CLOCK_TOLERANCE_S = 30
const JWKS_TIMEOUT_MS = 5_000

const looksLikeJwt = (token: string): boolean => /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)

/**
 * Verifies JWTs; undefined for a token that is none, is badly signed, or has expired.
 * @throws Refusal forbidden (it names no role), keys_unavailable (the JWKS cannot be read)
 */
export function jwtVerifier({ secret, jwksUrl }: JwtOptions) {
  const key = secret === null ? null : new TextEncoder().encode(secret)
  const keys =
    jwksUrl === null
      ? null
      : createRemoteJWKSet(new URL(jwksUrl), { timeoutDuration: JWKS_TIMEOUT_MS })

  const payloadOf = async (token: string): Promise<JWTPayload | undefined> => {
    const options = { clockTolerance: CLOCK_TOLERANCE_S, requiredClaims: ['sub'] }
    try {
      if (key) {
        const verified = await jwtVerify(token, key, {
          ...options,
          algorithms: SECRET_ALGORITHMS,
        }).catch(unlessOther(keys !== null))
        if (verified) return verified.payload
      }
      if (keys)
        return (await jwtVerify(token, keys, { ...options, algorithms: PUBLIC_ALGORITHMS })).payload
      return undefined
    } catch (error) {
      if (
        error instanceof errors.JWKSNoMatchingKey ||
        error instanceof errors.JWKSMultipleMatchingKeys
      )
        return undefined
      if (error instanceof errors.JWKSTimeout || !(error instanceof errors.JOSEError))
        throw new Refusal(
          'keys_unavailable',
          'the keys at RUNLANE_JWKS_URL cannot be read',
          {},
          error,
        )
      return undefined
    }
  }

  return async (token: string): Promise<Verified | undefined> => {
    if ((!key && !keys) || !looksLikeJwt(token)) return undefined
    const payload = await payloadOf(token)
    if (!payload || typeof payload.sub !== 'string' || payload.sub.length > 255) return undefined
    const role = roleOf(payload)
    if (!role)
      throw new Refusal(
        'forbidden',
        'the token names none of ROLE_VIEWER, ROLE_SERVICE, ROLE_OPERATOR, ROLE_ADMIN',
      )
    return {
      name: `user:${payload.sub}`,
      role,
      until: payload.exp === undefined ? null : payload.exp * 1000,
    }
  }
}

/** With both kinds of keys, a token that the secret cannot have signed may be one of the other kind. */
const unlessOther =
  (other: boolean) =>
  (error: unknown): undefined => {
    if (other && error instanceof errors.JOSEAlgNotAllowed) return undefined
    throw error
  }

/** The greatest of the roles that it names. */
function roleOf(payload: JWTPayload): Role | undefined {
  const given = [payload['roles'], payload['role']].flat()
  return ROLES.toReversed().find((role) => given.includes(`ROLE_${role.toUpperCase()}`))
}
