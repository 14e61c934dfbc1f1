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
import { JwtRefusal } from './jwt-refusal.ts'

export interface JwtOptions {
  secret: string | null
  jwksUrl: string | null
  /** Whose JWTs count; null: anybody's whose key is ours. */
  issuer: string | null
  /** For whom they have to be; null: for anybody. */
  audience: string | null
}

/** A verified token: who it names, and until when (milliseconds since 1970), which API tokens do not say. */
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
/** Clocks of issuers differ a little, in seconds: so long before its `nbf` and after its `exp` a JWT counts. */
const CLOCK_TOLERANCE_S = 30
const JWKS_TIMEOUT_MS = 5_000
/** A key that is not among those known is looked for again, but not more often: tokens of its name cost nothing. */
const JWKS_COOLDOWN_MS = 5_000
const SUB_LENGTH_MAX = 255

/** No API token does: those that we make have no dots. */
const looksLikeJwt = (token: string): boolean => /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)

/**
 * Verifies JWTs; undefined for a token that is none, or where none are taken.
 * @throws JwtRefusal where a check fails; Refusal keys_unavailable (the JWKS cannot be read)
 */
export function jwtVerifier({ secret, jwksUrl, issuer, audience }: JwtOptions) {
  const key = secret === null ? null : new TextEncoder().encode(secret)
  const keys = jwksUrl === null ? null : keysAt(jwksUrl)

  const options = {
    clockTolerance: CLOCK_TOLERANCE_S,
    requiredClaims: ['sub'],
    ...(issuer === null ? {} : { issuer }),
    ...(audience === null ? {} : { audience }),
  }

  const payloadOf = async (token: string): Promise<JWTPayload | undefined> => {
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
      throw refusalOf(error)
    }
  }

  return async (token: string): Promise<Verified | undefined> => {
    if ((!key && !keys) || !looksLikeJwt(token)) return undefined
    const payload = await payloadOf(token)
    if (!payload) return undefined
    const { sub, exp } = payload
    if (!isName(sub)) throw new JwtRefusal('sub')
    const role = roleOf(payload)
    if (!role) throw new JwtRefusal('role')
    return { name: `user:${sub}`, role, until: exp === undefined ? null : exp * 1000 }
  }
}

/** Written to the database and compared with what comes back: no NUL and no half characters. */
const isName = (sub: unknown): sub is string =>
  typeof sub === 'string' &&
  sub.length > 0 &&
  sub.length <= SUB_LENGTH_MAX &&
  sub.isWellFormed() &&
  !/\p{Cc}/u.test(sub)

/** The token's own fault, or that of the keys. */
const refusalOf = (error: unknown): Refusal =>
  error instanceof errors.JOSEError ? JwtRefusal.of(error) : unavailable(error)

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
): Promise<JWTPayload> {
  for await (const key of fitting) {
    try {
      return (await verify(key)).payload
    } catch (error) {
      // Not this one; where the signature is right, no other can be.
      if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw refusalOf(error)
    }
  }
  throw new JwtRefusal('signature')
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
