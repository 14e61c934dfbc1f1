import { errors } from 'jose'
import { Refusal } from '../../errors.ts'

/** What of a JWT did not hold: a claim by its name, or one of these. */
export type JwtCheck =
  | 'exp'
  | 'nbf'
  | 'iss'
  | 'aud'
  | 'sub'
  | 'role'
  | 'key'
  | 'signature'
  | 'algorithm'
  | 'form'

/** For whoever sent it and for outsiders: which check failed. Nothing of the token, and nothing of what was expected. */
const WORDS: Record<JwtCheck, string> = {
  exp: 'has no valid time of expiry (exp)',
  nbf: 'is not valid yet (nbf)',
  iss: 'is of another issuer (iss)',
  aud: 'is for another audience (aud)',
  sub: 'does not name its bearer (sub)',
  role: 'names none of ROLE_VIEWER, ROLE_SERVICE, ROLE_OPERATOR, ROLE_ADMIN',
  key: 'is signed with a key that is not known',
  signature: 'has a signature that is not right',
  algorithm: 'is signed with an algorithm that is not accepted',
  form: 'is not well-formed',
}

/** A JWT that does not count: 401, and 403 for one that is good but names no role. */
export class JwtRefusal extends Refusal {
  readonly check: JwtCheck

  constructor(check: JwtCheck, words = WORDS[check]) {
    super(check === 'role' ? 'forbidden' : 'unauthorized', `the JWT ${words}`)
    this.check = check
  }

  /** What jose has found, which looks at claims only where the signature is right. */
  static of(error: errors.JOSEError): JwtRefusal {
    if (error instanceof errors.JWTExpired) return new JwtRefusal('exp', 'has expired (exp)')
    if (error instanceof errors.JWTClaimValidationFailed) return ofClaim(error)
    return new JwtRefusal(NAMES.find(([type]) => error instanceof type)?.[1] ?? 'form')
  }
}

function ofClaim({ claim }: errors.JWTClaimValidationFailed): JwtRefusal {
  return new JwtRefusal(CLAIMS.find((name) => name === claim) ?? 'form')
}

const CLAIMS = ['exp', 'nbf', 'iss', 'aud', 'sub'] as const
const NAMES: readonly (readonly [new (...given: never[]) => errors.JOSEError, JwtCheck])[] = [
  [errors.JWSSignatureVerificationFailed, 'signature'],
  [errors.JWKSNoMatchingKey, 'key'],
  [errors.JOSEAlgNotAllowed, 'algorithm'],
  [errors.JOSENotSupported, 'algorithm'],
]
