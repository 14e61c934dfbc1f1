import { z } from 'zod'
import {
  allowList,
  autoTerminate,
  bearerToken,
  byteSize,
  claim,
  databaseUrl,
  duration,
  host,
  integer,
  keySetUrl,
  long,
  nodeId,
  retention,
  webhookSecret,
  webhookUrls,
} from './setting-values.ts'

/** A row of the table; without `fallback` an unset variable is null. A `secret` is never shown. */
export type Setting = {
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
export const settings = {
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
  agents: setting(
    'RUNLANE_AGENTS',
    'agents',
    z.string(),
    'folder of `.ts`, `.js`, `.mjs` modules; one that you name must be there',
  ),
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
  jwtIssuer: setting(
    'RUNLANE_JWT_ISSUER',
    null,
    claim,
    'JWTs must come from it: their `iss`, exactly; unset: any issuer',
  ),
  jwtAudience: setting(
    'RUNLANE_JWT_AUDIENCE',
    null,
    claim,
    'JWTs must be for it: in their `aud`, exactly; unset: any audience',
  ),
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
  rateLimit: setting(
    'RUNLANE_RATE_LIMIT',
    '1000',
    integer(1, 1_000_000),
    'requests of one caller in a second, on each node: more are 429',
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
  webhookUrls: secret(
    'RUNLANE_WEBHOOK_URLS',
    webhookUrls,
    'receivers of the notices of all runs: up to 8 http(s) URLs, comma-separated; needs `RUNLANE_WEBHOOK_SECRET`',
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
