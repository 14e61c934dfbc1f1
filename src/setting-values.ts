/** What the values of settings have to look like. */
import { isIP } from 'node:net'
import { z } from 'zod'
import { parseDuration, readDuration } from './duration.ts'

const isHost = (text: string): boolean => {
  if (isIP(text) !== 0) return !text.includes('%')
  const labels = text.split('.')
  // URL parsers take a name that ends in a number for an IPv4 address ("10.1" is 10.0.0.1).
  if (/^(\d+|0x[\da-f]*)$/i.test(labels.at(-1) ?? '')) return false
  return text.length <= 253 && labels.every((label) => /^\w([\w-]{0,61}\w)?$/.test(label))
}

const isHostOrCidr = (text: string): boolean => {
  const [address = '', prefix, ...rest] = text.split('/')
  if (prefix === undefined) return isHost(text)
  const bits = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1
  return rest.length === 0 && isHost(address) && /^\d{1,3}$/.test(prefix) && Number(prefix) <= bits
}

export const host = z.string().refine(isHost, 'must be an IP address or a host name')

// A value from a file with Windows line ends carries a "\r" that is hard to see in later errors.
export const oneLine = z
  .string()
  .refine((text) => text === text.trim(), 'has spaces or a line break around it')
  .refine((text) => !/\p{Cc}/u.test(text.trim()), 'must not contain control characters')

export const duration = (least: number) =>
  z.string().transform((text, issues) => readDuration(text, issues, { least }))

export const retention = z.string().transform((text, issues) => {
  return text === 'off' ? null : readDuration(text, issues, { most: parseDuration('3650d') })
})

type AutoTerminate =
  | { readonly mode: 'off' }
  | { readonly mode: 'on' | 'shadow'; readonly afterMs: number }

export const autoTerminate = z.string().transform((text, issues): AutoTerminate => {
  if (text === 'off') return { mode: 'off' }
  const mode = text.startsWith('shadow:') ? 'shadow' : 'on'
  return { mode, afterMs: readDuration(text.replace(/^shadow:/, ''), issues) }
})

export const nodeId = z.string().max(255, 'must have at most 255 characters')

export const claim = z.string().max(255, 'must have at most 255 characters')

export const integer = (least: number, most: number) =>
  z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .refine((n) => n >= least && n <= most, `must be from ${least} to ${most}`)

const sizeUnits = ['b', 'kb', 'mb']
// One jsonb string or array holds at most 256 MB, so a larger body could not be stored.
export const byteSize = z
  .string()
  .regex(/^\d+(b|kb|mb)$/i, 'needs a number with a unit: b, kb or mb, such as "512kb"')
  .transform((text) => {
    const power = sizeUnits.indexOf(text.replace(/\d+/, '').toLowerCase())
    return Number.parseInt(text, 10) * 1024 ** power
  })
  .refine((bytes) => bytes >= 1024 && bytes <= 255 * 1024 ** 2, 'must be from 1kb to 255mb')

export const databaseUrl = z.string().refine((text) => {
  const [, authority] = /^postgres(?:ql)?:\/\/([^/?#]*)/.exec(text) ?? []
  if (authority === undefined || /%(?![\da-f]{2})/i.test(text)) return false
  // The driver takes several hosts ("db1:5432,db2:5432"), which is not a URL; one of them is.
  const hosts = authority.slice(authority.lastIndexOf('@') + 1)
  return URL.canParse(text.replace(hosts, hosts.split(',')[0] ?? ''))
}, 'must be a postgres:// or postgresql:// URL, special characters in it percent-encoded')

export const keySetUrl = z.string().refine((text) => {
  // fetch() refuses a URL with a user or password in it.
  return /^https?:\/\/[^/?#@]+([/?#]|$)/i.test(text) && URL.canParse(text)
}, 'must be an http:// or https:// URL without user and password')

export const long = z.string().min(16, 'must have at least 16 characters')
export const bearerToken = long.regex(/^[\x21-\x7e]*$/, 'must be ASCII characters without spaces')

export const webhookSecret = z.string().refine((text) => {
  const base64 = text.replace(/^whsec_/, '')
  const decoded = Buffer.from(base64, 'base64')
  // Node skips what is not base64; encoding again shows whether it did.
  return base64 !== text && decoded.length >= 24 && decoded.toString('base64') === base64
}, 'must be whsec_ and the padded base64 of at least 24 bytes')

const WEBHOOK_URLS_MAX = 8
export const webhookUrls = z
  .string()
  .transform((text): readonly string[] => [...new Set(text.split(',').map((item) => item.trim()))])
  .refine((urls) => urls.length <= WEBHOOK_URLS_MAX, `must be at most ${WEBHOOK_URLS_MAX} URLs`)
  .refine(
    (urls) => urls.every((url) => keySetUrl.safeParse(url).success),
    'must be http:// or https:// URLs without user and password, commas in them written as %2C',
  )

export const allowList = z
  .string()
  .transform((text): readonly string[] => text.split(',').map((item) => item.trim().toLowerCase()))
  .refine((items) => items.every(isHostOrCidr), 'must be hosts or CIDRs, without scheme or port')
