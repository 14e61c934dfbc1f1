import {
  createRemoteJWKSet,
  type CryptoKey,
  errors,
  type JWTPayload,
  jwtVerify,
  type JWTVerifyGetKey,
} from 'jose'
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
/** A key that is not among those known is looked for again, but not more often: tokens of its name cost nothing. */
const JWKS_COOLDOWN_MS = 5_000
const SUB_LENGTH_MAX = 255

/** No API token does: those that we make have no dots. */
const looksLikeJwt = (token: string): boolean => /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)

/**
 * Verifies JWTs; undefined for a token that is none, is badly signed, or has expired.
 * @throws Refusal forbidden (it names no role), keys_unavailable (the JWKS cannot be read)
 */
export function jwtVerifier({ secret, jwksUrl }: JwtOptions) {
  const key = secret === null ? null : new TextEncoder().encode(secret)
  const keys = jwksUrl === null ? null : keysAt(jwksUrl)

  const payloadOf = async (token: string): Promise<JWTPayload | undefined> => {
    const options = { clockTolerance: CLOCK_TOLERANCE_S, requiredClaims: ['sub'] }
    const bySecret = { ...options, algorithms: SECRET_ALGORITHMS }
    const byPublic = { ...options, algorithms: PUBLIC_ALGORITHMS }
    try {
      if (key) {
        const verified = await jwtVerify(token, key, bySecret).catch(unlessOther(keys !== null))
        if (verified) return verified.payload
      }
      return keys ? (await jwtVerify(token, keys, byPublic)).payload : undefined
    } catch (error) {
      if (error instanceof errors.JWKSMultipleMatchingKeys)
        return payloadOfAny(error, (one) => jwtVerify(token, one, byPublic))
      // The token's own fault.
      if (error instanceof errors.JOSEError) return undefined
      throw unavailable(error)
    }
  }

  return async (token: string): Promise<Verified | undefined> => {
    if ((!key && !keys) || !looksLikeJwt(token)) return undefined
    const payload = await payloadOf(token)
    if (!payload || !isName(payload.sub)) return undefined
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

/** Written to the database and compared with what comes back: no NUL and no half characters. */
const isName = (sub: unknown): sub is string =>
  typeof sub === 'string' &&
  sub.length > 0 &&
  sub.length <= SUB_LENGTH_MAX &&
  sub.isWellFormed() &&
  !/\p{Cc}/u.test(sub)

const unavailable = (error: unknown): Refusal =>
  error instanceof Refusal
    ? error
    : new Refusal(
        'keys_unavailable',
        'the keys at RUNLANE_JWKS_URL cannot be read or used',
        {},
        error,
      )

/** @throws Refusal keys_unavailable where the keys cannot be had, which is not the token's fault */
function keysAt(url: string): JWTVerifyGetKey {
  const keys = createRemoteJWKSet(new URL(url), {
    timeoutDuration: JWKS_TIMEOUT_MS,
    cooldownDuration: JWKS_COOLDOWN_MS,
  })
  return async (header, token) => {
    try {
      return await keys(header, token)
    } catch (error) {
      const isAnswer =
        error instanceof errors.JWKSNoMatchingKey ||
        error instanceof errors.JWKSMultipleMatchingKeys
      throw isAnswer ? error : unavailable(error)
    }
  }
}

/** A token that names no key may be signed by any that fits: while keys change there are two. */
async function payloadOfAny(
  fitting: AsyncIterable<CryptoKey>,
  verify: (key: CryptoKey) => Promise<{ payload: JWTPayload }>,
): Promise<JWTPayload | undefined> {
  for await (const key of fitting) {
    try {
      return (await verify(key)).payload
    } catch {
      // Not this one.
    }
  }
  return undefined
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
