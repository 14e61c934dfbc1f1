import { isIP } from 'node:net'
import { z } from 'zod'
import { parseDuration, readDuration } from './duration.ts'
import { nearest } from './nearest.ts'

/**
 * Reads every setting from environment variables; an empty one counts as unset. Pure: the caller
 * passes the environment, and `defaults` (this machine's name and process id) names the node.
 *
 * @throws {ConfigError} with all problems at once: each value that does not fit, each unknown
 *   `RUNLANE_*` name.
 */
export const parseConfig = (
  env: Readonly<Record<string, string | undefined>>,
  defaults: { readonly host: string; readonly pid: number },
): Config => {
  const problems = unknownNames(env)
  const values: Record<string, unknown> = {}
  for (const [key, setting] of Object.entries<Setting>(settings)) {
    const text = env[setting.name] || setting.fallback
    if (text === null) {
      values[key] = null
      continue
    }
    const result = oneLine.pipe(setting.schema).safeParse(text)
    if (result.success) values[key] = result.data
    else problems.push({ name: setting.name, message: explain(setting, text, result.error) })
  }
  if (problems.length > 0) throw new ConfigError(problems)

  const parsed = values as Parsed
  return Object.freeze({
    ...parsed,
    nodeId: parsed.nodeId ?? `${defaults.host}-${defaults.pid}`,
    webhookAllow: parsed.webhookAllow ?? (isLoopback(parsed.host) ? LOOPBACK : []),
  })
}

/**
 * All settings, read once at start and passed down. Names end in their unit: `…Ms` milliseconds,
 * `…Bytes` bytes; `null` is unset (`retentionMs`: keep for ever). `settings` has their meaning.
 */
export type Config = Readonly<
  Omit<Parsed, 'nodeId' | 'webhookAllow'> & { nodeId: string; webhookAllow: readonly string[] }
>

/** Why the service can't start: `problems` in the order of the table, one line of `message` each. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly ConfigProblem[]

  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map((problem) => problem.message).join('\n'))
    this.problems = problems
  }
}

/** `name` is the environment variable; `message` a line that names it and never shows a secret. */
export type ConfigProblem = { readonly name: string; readonly message: string }

/** The README's table of settings, in Markdown. */
export const configTable = (): string => {
  const rows = Object.values<Setting>(settings).map(({ name, fallback, description }) => {
    const shown = fallback === null ? '–' : `\`${fallback}\``
    return `| \`${name}\` | ${shown} | ${description.replaceAll('|', '\\|')} |`
  })
  return ['| variable | default | meaning |', '| --- | --- | --- |', ...rows, ''].join('\n')
}

const unknownNames = (env: Readonly<Record<string, string | undefined>>): ConfigProblem[] => {
  // Compared without the prefix, so that RUNLANE_PORT finds PORT and the prefix hides no difference.
  const known = new Map<string, string>()
  for (const { name } of Object.values(settings)) known.set(name.replace(/^RUNLANE_/, ''), name)
  const names = new Set(known.values())
  return Object.keys(env)
    .filter((name) => /^RUNLANE_/i.test(name) && env[name] !== undefined && !names.has(name))
    .map((name) => {
      const near = known.get(nearest(name.slice(8).toUpperCase(), known.keys()) ?? '')
      const hint = near === undefined ? '' : `, did you mean ${near}?`
      return { name, message: `unknown setting ${name}${hint}` }
    })
}

const explain = ({ name, secret }: Setting, text: string, error: z.ZodError): string => {
  const problem = error.issues.map((issue) => issue.message).join('; ')
  return `${name}: ${problem}${secret ? '' : ` (got ${JSON.stringify(text.slice(0, 80))})`}`
}

const LOOPBACK: readonly string[] = ['localhost', '127.0.0.0/8', '::1/128']
const isLoopback = (host: string): boolean =>
  host.toLowerCase() === 'localhost' ||
  host === '::1' ||
  (isIP(host) === 4 && host.startsWith('127.'))

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

const host = z.string().refine(isHost, 'must be an IP address or a host name')

// A value from a file with Windows line ends carries a "\r" that is hard to see in later errors.
const oneLine = z
  .string()
  .refine((text) => text === text.trim(), 'has spaces or a line break around it')
  .refine((text) => !/\p{Cc}/u.test(text.trim()), 'must not contain control characters')

const duration = (least: number) =>
  z.string().transform((text, issues) => readDuration(text, issues, { least }))

const retention = z.string().transform((text, issues) => {
  return text === 'off' ? null : readDuration(text, issues, { most: parseDuration('3650d') })
})

type AutoTerminate =
  | { readonly mode: 'off' }
  | { readonly mode: 'on' | 'shadow'; readonly afterMs: number }

const autoTerminate = z.string().transform((text, issues): AutoTerminate => {
  if (text === 'off') return { mode: 'off' }
  const mode = text.startsWith('shadow:') ? 'shadow' : 'on'
  return { mode, afterMs: readDuration(text.replace(/^shadow:/, ''), issues) }
})

const nodeId = z.string().max(255, 'must have at most 255 characters')

const integer = (least: number, most: number) =>
  z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .refine((n) => n >= least && n <= most, `must be from ${least} to ${most}`)

const sizeUnits = ['b', 'kb', 'mb']
// One jsonb string or array holds at most 256 MB, so a larger body could not be stored.
const byteSize = z
  .string()
  .regex(/^\d+(b|kb|mb)$/i, 'needs a number with a unit: b, kb or mb, such as "512kb"')
  .transform((text) => {
    const power = sizeUnits.indexOf(text.replace(/\d+/, '').toLowerCase())
    return Number.parseInt(text, 10) * 1024 ** power
  })
  .refine((bytes) => bytes >= 1024 && bytes <= 255 * 1024 ** 2, 'must be from 1kb to 255mb')

const databaseUrl = z.string().refine((text) => {
  const [, authority] = /^postgres(?:ql)?:\/\/([^/?#]*)/.exec(text) ?? []
  if (authority === undefined || /%(?![\da-f]{2})/i.test(text)) return false
  // The driver takes several hosts ("db1:5432,db2:5432"), which is not a URL; one of them is.
  const hosts = authority.slice(authority.lastIndexOf('@') + 1)
  return URL.canParse(text.replace(hosts, hosts.split(',')[0] ?? ''))
}, 'must be a postgres:// or postgresql:// URL, special characters in it percent-encoded')

const keySetUrl = z.string().refine((text) => {
  // fetch() refuses a URL with a user or password in it.
  return /^https?:\/\/[^/?#@]+([/?#]|$)/i.test(text) && URL.canParse(text)
}, 'must be an http:// or https:// URL without user and password')

const long = z.string().min(16, 'must have at least 16 characters')
const bearerToken = long.regex(/^[\x21-\x7e]*$/, 'must be ASCII characters without spaces')

const webhookSecret = z.string().refine((text) => {
  const base64 = text.replace(/^whsec_/, '')
  const decoded = Buffer.from(base64, 'base64')
  // Node skips what is not base64; encoding again shows whether it did.
  return base64 !== text && decoded.length >= 24 && decoded.toString('base64') === base64
}, 'must be whsec_ and the padded base64 of at least 24 bytes')

const allowList = z
  .string()
  .transform((text): readonly string[] => text.split(',').map((item) => item.trim().toLowerCase()))
  .refine((items) => items.every(isHostOrCidr), 'must be hosts or CIDRs, without scheme or port')

/** A row of the table; without `fallback` an unset variable is null. A `secret` is never shown. */
type Setting = {
  readonly name: string
  readonly fallback: string | null
  readonly schema: z.ZodType<unknown, string>
  readonly description: string
  readonly secret?: boolean
}

const clock = (name: string, fallback: string, description: string, least = 10) => {
  return { name, fallback, schema: duration(least), description }
}

const secret = <T>(name: string, schema: z.ZodType<T, string>, description: string) => {
  return { name, fallback: null, schema, description, secret: true }
}

const setting = <T, F extends string | null>(
  name: string,
  fallback: F,
  schema: z.ZodType<T, string>,
  description: string,
) => ({ name, fallback, schema, description })

/** The one list of settings, by their name in `Config`. Clocks are at least 10 ms. */
const settings = {
  host: setting('HOST', '127.0.0.1', host, 'listen address: an IP address or a host name'),
  port: setting('PORT', '7420', integer(0, 65_535), 'listen port; `0`: a free one, printed'),
  databaseUrl: secret(
    'DATABASE_URL',
    databaseUrl,
    'Postgres; unset: embedded PGlite in `RUNLANE_DATA_DIR`',
  ),
  dataDir: setting(
    'RUNLANE_DATA_DIR',
    '.runlane',
    z.string(),
    'folder of the embedded database; locked against a second process',
  ),
  agents: setting('RUNLANE_AGENTS', 'agents', z.string(), 'folder of `.ts`, `.js`, `.mjs` modules'),
  adminToken: secret(
    'RUNLANE_ADMIN_TOKEN',
    bearerToken,
    'makes this bearer token (at least 16 characters) an admin; unset: one is created at first start, stored hashed, and kept readable for its owner alone (mode 0600) in the data directory',
  ),
  jwtSecret: secret(
    'RUNLANE_JWT_SECRET',
    long,
    'accept JWTs signed with this secret (at least 16 characters): `sub`, `roles` or `role` containing `ROLE_ADMIN`, `ROLE_OPERATOR`, `ROLE_SERVICE`, `ROLE_VIEWER`',
  ),
  jwksUrl: secret('RUNLANE_JWKS_URL', keySetUrl, 'accept JWTs signed by a key published here'),
  watchdogReasoningMs: clock('RUNLANE_WATCHDOG_REASONING', '30s', 'a short step without progress'),
  watchdogToolMs: clock('RUNLANE_WATCHDOG_TOOL', '150s', 'a tool call without progress'),
  watchdogTurnMs: clock('RUNLANE_WATCHDOG_TURN', '600s', 'a whole turn (attempt)'),
  watchdogExecutorMs: clock('RUNLANE_WATCHDOG_EXECUTOR', '15s', 'a probe without answer'),
  watchdogIntervalMs: clock('RUNLANE_WATCHDOG_INTERVAL', '1s', 'how often the watchdog looks'),
  orphanGraceMs: clock('RUNLANE_ORPHAN_GRACE', '30s', 'before an unwatched run counts as orphan'),
  reconcileIntervalMs: clock('RUNLANE_RECONCILE_INTERVAL', '5m', 'reconciler pass; also at boot'),
  heartbeatTimeoutMs: clock('RUNLANE_HEARTBEAT_TIMEOUT', '5m', 'silent active runs: `timed_out`'),
  queueTimeoutMs: clock('RUNLANE_QUEUE_TIMEOUT', '1h', 'runs waiting for a slot or lane: `failed`'),
  cancelTimeoutMs: clock('RUNLANE_CANCEL_TIMEOUT', '3m', 'cancels not finished: `cancelled`'),
  leaseMs: clock('RUNLANE_LEASE', '5s', 'node lease; a node that misses it is dead', 1_000),
  recovery: setting(
    'RUNLANE_RECOVERY',
    'auto',
    z.enum(['auto', 'manual'], 'must be auto or manual'),
    "a dead node's runs: `auto` resume where eligible, `manual` → `timed_out`",
  ),
  autoTerminate: setting(
    'RUNLANE_AUTO_TERMINATE',
    'off',
    autoTerminate,
    '`30m` ends runs stuck that long; `shadow:30m` only records',
  ),
  sseHeartbeatMs: clock('RUNLANE_SSE_HEARTBEAT', '15s', 'comment frame interval'),
  providerCooldownMs: clock('RUNLANE_PROVIDER_COOLDOWN', '15m', 'back to tier 1 after'),
  retentionMs: setting(
    'RUNLANE_RETENTION',
    '30d',
    retention,
    'terminal runs are deleted after; `off` keeps them',
  ),
  concurrency: setting('RUNLANE_CONCURRENCY', '200', integer(1, 100_000), 'active runs per node'),
  bodyLimitBytes: setting(
    'RUNLANE_BODY_LIMIT',
    '1mb',
    byteSize,
    'request bodies; `1kb` is 1024 bytes',
  ),
  maxCrashes: setting(
    'RUNLANE_MAX_CRASHES',
    '3',
    integer(1, 1_000_000),
    'attempts without a new checkpoint before a run waits for a human (`crash_loop`)',
  ),
  webhookSecret: secret(
    'RUNLANE_WEBHOOK_SECRET',
    webhookSecret,
    '`whsec_<base64>` (at least 24 bytes) for Standard Webhooks',
  ),
  webhookAllow: setting(
    'RUNLANE_WEBHOOK_ALLOW',
    null,
    allowList,
    'private hosts or CIDRs that callbacks, declared tools and `http` steps may reach, comma-separated; unset: loopback while `HOST` is loopback, else none',
  ),
  nodeId: setting('RUNLANE_NODE_ID', null, nodeId, 'shown in snapshots; unset: host and pid'),
  openaiApiKey: secret('OPENAI_API_KEY', z.string(), 'for models `openai:…` and the `assistant`'),
  openaiBaseUrl: setting(
    'OPENAI_BASE_URL',
    null,
    keySetUrl,
    'an OpenAI-compatible server instead, up to and with its `/v1`; it may need no key',
  ),
  openaiModel: setting(
    'OPENAI_MODEL',
    null,
    z.string(),
    'model of the `assistant`; else `gpt-5.2`',
  ),
  anthropicApiKey: secret(
    'ANTHROPIC_API_KEY',
    z.string(),
    'for models `anthropic:…`, and for the `assistant` when no OpenAI is set',
  ),
  anthropicBaseUrl: setting('ANTHROPIC_BASE_URL', null, keySetUrl, 'another server for them'),
  anthropicModel: setting(
    'ANTHROPIC_MODEL',
    null,
    z.string(),
    'model of the `assistant`; else `claude-opus-4-7`',
  ),
} satisfies Record<string, Setting>

type Parsed = {
  [K in keyof typeof settings]:
    | z.output<(typeof settings)[K]['schema']>
    | ((typeof settings)[K]['fallback'] extends null ? null : never)
}
