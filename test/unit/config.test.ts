import { describe, expect, test } from 'vitest'
import { type Config, ConfigError, configTable, parseConfig } from '../../src/config.ts'

const parse = (env: Record<string, string | undefined> = {}): Config =>
  parseConfig(env, { host: 'box', pid: 42 })

const problemsOf = (env: Record<string, string | undefined>): ConfigError => {
  try {
    parse(env)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('the configuration was accepted')
}

const base64 = (bytes: number): string => Buffer.alloc(bytes, 7).toString('base64')

/** Variable, key, default as in HTTP.md (`–` for none) and as parsed: the contract, copied by hand. */
const contract: [string, keyof Config, string, unknown][] = [
  ['HOST', 'host', '127.0.0.1', '127.0.0.1'],
  ['PORT', 'port', '7420', 7420],
  ['DATABASE_URL', 'databaseUrl', '–', null],
  ['RUNLANE_DATA_DIR', 'dataDir', '.runlane', '.runlane'],
  ['RUNLANE_AGENTS', 'agents', 'agents', 'agents'],
  ['RUNLANE_ADMIN_TOKEN', 'adminToken', '–', null],
  ['RUNLANE_JWT_SECRET', 'jwtSecret', '–', null],
  ['RUNLANE_JWKS_URL', 'jwksUrl', '–', null],
  ['RUNLANE_JWT_ISSUER', 'jwtIssuer', '–', null],
  ['RUNLANE_JWT_AUDIENCE', 'jwtAudience', '–', null],
  ['RUNLANE_WATCHDOG_REASONING', 'watchdogReasoningMs', '30s', 30_000],
  ['RUNLANE_WATCHDOG_TOOL', 'watchdogToolMs', '150s', 150_000],
  ['RUNLANE_WATCHDOG_TURN', 'watchdogTurnMs', '600s', 600_000],
  ['RUNLANE_WATCHDOG_EXECUTOR', 'watchdogExecutorMs', '15s', 15_000],
  ['RUNLANE_WATCHDOG_INTERVAL', 'watchdogIntervalMs', '1s', 1_000],
  ['RUNLANE_ORPHAN_GRACE', 'orphanGraceMs', '30s', 30_000],
  ['RUNLANE_RECONCILE_INTERVAL', 'reconcileIntervalMs', '5m', 300_000],
  ['RUNLANE_HEARTBEAT_TIMEOUT', 'heartbeatTimeoutMs', '5m', 300_000],
  ['RUNLANE_QUEUE_TIMEOUT', 'queueTimeoutMs', '1h', 3_600_000],
  ['RUNLANE_CANCEL_TIMEOUT', 'cancelTimeoutMs', '3m', 180_000],
  ['RUNLANE_LEASE', 'leaseMs', '5s', 5_000],
  ['RUNLANE_RECOVERY', 'recovery', 'auto', 'auto'],
  ['RUNLANE_AUTO_TERMINATE', 'autoTerminate', 'off', { mode: 'off' }],
  ['RUNLANE_SSE_HEARTBEAT', 'sseHeartbeatMs', '15s', 15_000],
  ['RUNLANE_PROVIDER_COOLDOWN', 'providerCooldownMs', '15m', 900_000],
  ['RUNLANE_RETENTION', 'retentionMs', '30d', 2_592_000_000],
  ['RUNLANE_CONCURRENCY', 'concurrency', '200', 200],
  ['RUNLANE_BODY_LIMIT', 'bodyLimitBytes', '1mb', 1_048_576],
  ['RUNLANE_RATE_LIMIT', 'rateLimit', '1000', 1_000],
  ['RUNLANE_MAX_CRASHES', 'maxCrashes', '3', 3],
  ['RUNLANE_WEBHOOK_SECRET', 'webhookSecret', '–', null],
  ['RUNLANE_WEBHOOK_ALLOW', 'webhookAllow', '–', ['localhost', '127.0.0.0/8', '::1/128']],
  ['RUNLANE_WEBHOOK_URLS', 'webhookUrls', '–', []],
  ['RUNLANE_NODE_ID', 'nodeId', '–', 'box-42'],
  ['OPENAI_API_KEY', 'openaiApiKey', '–', null],
  ['OPENAI_BASE_URL', 'openaiBaseUrl', '–', null],
  ['OPENAI_MODEL', 'openaiModel', '–', null],
  ['ANTHROPIC_API_KEY', 'anthropicApiKey', '–', null],
  ['ANTHROPIC_BASE_URL', 'anthropicBaseUrl', '–', null],
  ['ANTHROPIC_MODEL', 'anthropicModel', '–', null],
]

const clocks = contract.filter(([name, key]) => key.endsWith('Ms') && name !== 'RUNLANE_RETENTION')

describe('the configuration', () => {
  test('has the defaults of the contract, and nothing else', () => {
    const expected = Object.fromEntries(contract.map(([, key, , value]) => [key, value]))

    expect(parse()).toEqual(expected)
  })

  test('takes an empty variable for an unset one', () => {
    const empty = Object.fromEntries(contract.map(([name]) => [name, '']))

    expect(parse(empty)).toEqual(parse())
  })

  test('leaves variables of others alone', () => {
    expect(parse({ OTEL_SERVICE_NAME: 'x', GEMINI_API_KEY: 'y', PATH: '/bin' })).toEqual(parse())
  })

  test.each<[string, string, keyof Config, unknown]>([
    ['HOST', '::', 'host', '::'],
    ['PORT', '0', 'port', 0],
    ['DATABASE_URL', 'postgresql:///db', 'databaseUrl', 'postgresql:///db'],
    ['DATABASE_URL', 'postgres://u:p%40@a:1,b:2/db', 'databaseUrl', 'postgres://u:p%40@a:1,b:2/db'],
    ['RUNLANE_DATA_DIR', '/var/lib/run lane', 'dataDir', '/var/lib/run lane'],
    ['RUNLANE_ADMIN_TOKEN', '0123456789abcdef', 'adminToken', '0123456789abcdef'],
    ['RUNLANE_JWKS_URL', 'https://id.test/keys', 'jwksUrl', 'https://id.test/keys'],
    ['RUNLANE_WATCHDOG_TURN', '250ms', 'watchdogTurnMs', 250],
    ['RUNLANE_LEASE', '1s', 'leaseMs', 1_000],
    ['RUNLANE_RECOVERY', 'manual', 'recovery', 'manual'],
    ['RUNLANE_AUTO_TERMINATE', '30m', 'autoTerminate', { mode: 'on', afterMs: 1_800_000 }],
    [
      'RUNLANE_AUTO_TERMINATE',
      'shadow:1h',
      'autoTerminate',
      { mode: 'shadow', afterMs: 3_600_000 },
    ],
    ['RUNLANE_RETENTION', 'off', 'retentionMs', null],
    ['RUNLANE_RETENTION', '3650d', 'retentionMs', 315_360_000_000],
    ['RUNLANE_BODY_LIMIT', '512KB', 'bodyLimitBytes', 524_288],
    ['RUNLANE_BODY_LIMIT', '2048b', 'bodyLimitBytes', 2_048],
    ['RUNLANE_WEBHOOK_SECRET', `whsec_${base64(24)}`, 'webhookSecret', `whsec_${base64(24)}`],
    [
      'RUNLANE_WEBHOOK_ALLOW',
      'A.test, fd00::/8,::1',
      'webhookAllow',
      ['a.test', 'fd00::/8', '::1'],
    ],
    ['RUNLANE_NODE_ID', 'n1', 'nodeId', 'n1'],
  ])('reads %s=%s', (name, text, key, value) => {
    expect(parse({ [name]: text })[key]).toEqual(value)
  })

  test('lets callbacks reach loopback only while the service listens on loopback', () => {
    const loopback = ['localhost', '127.0.0.0/8', '::1/128']

    for (const host of ['localhost', '127.0.0.9', '::1']) {
      expect(parse({ HOST: host }).webhookAllow).toEqual(loopback)
    }
    for (const host of ['0.0.0.0', '::', '10.1.2.3', '127.example.test']) {
      expect(parse({ HOST: host }).webhookAllow).toEqual([])
    }
    expect(parse({ RUNLANE_WEBHOOK_ALLOW: 'a.test' }).webhookAllow).toEqual(['a.test'])
  })
})

describe('receivers of webhooks', () => {
  const RUNLANE_WEBHOOK_SECRET = `whsec_${base64(24)}`
  test('are one or several URLs, each once', () => {
    const RUNLANE_WEBHOOK_URLS =
      'https://a.test/hook?key=1, http://b.test,https://a.test/hook?key=1'
    expect(parse({ RUNLANE_WEBHOOK_SECRET, RUNLANE_WEBHOOK_URLS }).webhookUrls).toEqual([
      'https://a.test/hook?key=1',
      'http://b.test',
    ])
  })

  test('are refused without a secret to sign with', () => {
    expect(problemsOf({ RUNLANE_WEBHOOK_URLS: 'https://a.test/' }).problems).toEqual([
      {
        name: 'RUNLANE_WEBHOOK_URLS',
        message: 'RUNLANE_WEBHOOK_URLS: needs RUNLANE_WEBHOOK_SECRET, to sign with',
      },
    ])
  })
})

const wrong: [string, ...string[]][] = [
  ['HOST', 'http://x', 'a b', '[::1]', '999.1.1.1', 'x:80'],
  ['PORT', '-1', '65536', '80.5', '0x50', 'http', ' 80', '80\r'],
  ['DATABASE_URL', 'mysql://h/db', 'postgres:db', 'h:5432/db', 'postgres://u:50%@h/db'],
  ['RUNLANE_DATA_DIR', ' ', 'a\nb'],
  ['RUNLANE_AGENTS', ' agents'],
  ['RUNLANE_ADMIN_TOKEN', 'short', 'has a space in the token', 'nön-ascii-token-value'],
  ['RUNLANE_JWT_SECRET', 'short'],
  ['RUNLANE_JWKS_URL', 'file:///keys', 'keys', 'https://u:p@h/keys', 'https://h:99999/'],
  ['RUNLANE_JWT_ISSUER', 'i'.repeat(256), ' https://issuer.test'],
  ['RUNLANE_JWT_AUDIENCE', 'a'.repeat(256), 'a\nb'],
  ...clocks.map(([name]): [string, ...string[]] => [name, '5', '0s', '5min', '25d']),
  ['RUNLANE_LEASE', '999ms'],
  ['RUNLANE_RECOVERY', 'AUTO', 'off'],
  ['RUNLANE_AUTO_TERMINATE', 'on', '30', 'shadow', 'shadow:', 'shadow:off', '25d'],
  ['RUNLANE_RETENTION', '30', '0d', 'never', '3651d'],
  ['RUNLANE_CONCURRENCY', '0', '100001', '1e3', '-5'],
  ['RUNLANE_BODY_LIMIT', '1048576', '1', '0mb', '1023b', '256mb', '1.5mb', '1gb'],
  ['RUNLANE_RATE_LIMIT', '0', '1.5', '1000001'],
  ['RUNLANE_MAX_CRASHES', '0', 'three'],
  ['RUNLANE_WEBHOOK_SECRET', base64(24), `whsec_${base64(23)}`, `whsec_${'-'.repeat(40)}`],
  ['RUNLANE_WEBHOOK_ALLOW', 'http://h', 'h:80', '10.0.0.0/33', '::/129', 'a,,b', '*', 'h/8'],
  ['RUNLANE_WEBHOOK_URLS', 'h/hook', 'ftp://h/', 'https://u:p@h/', 'http://a,,http://b'],
  ['RUNLANE_WEBHOOK_URLS', Array.from({ length: 9 }, (_, nth) => `http://h/${nth}`).join(',')],
  ['RUNLANE_NODE_ID', 'n'.repeat(256), 'a\tb'],
  ['OPENAI_API_KEY', ' sk-1', 'sk-1\n'],
  ['OPENAI_BASE_URL', 'localhost:11434/v1', 'ftp://h/v1', 'http://u:p@h/v1'],
  ['OPENAI_MODEL', 'gpt\n5'],
  ['ANTHROPIC_API_KEY', 'sk-1\r'],
  ['ANTHROPIC_BASE_URL', 'h/v1', 'https://h:99999/'],
  ['ANTHROPIC_MODEL', ' claude'],
]

describe('a bad setting', () => {
  test('is tried here for every variable', () => {
    expect(new Set(wrong.map(([name]) => name))).toEqual(new Set(contract.map(([name]) => name)))
  })

  test.each(wrong.flatMap(([name, ...texts]) => texts.map((text) => [name, text] as const)))(
    'stops the start and is named: %s=%j',
    (name, text) => {
      const error = problemsOf({ [name]: text })

      expect(error.problems.map((problem) => problem.name)).toEqual([name])
      expect(error.message).toMatch(new RegExp(`^${name}: (must|needs|has) [^\n]+$`))
    },
  )

  test.each([
    [
      'RUNLANE_LEASE',
      '5',
      'RUNLANE_LEASE: needs a unit: ms, s, m, h or d, such as "30s" (got "5")',
    ],
    ['RUNLANE_LEASE', '10ms', 'RUNLANE_LEASE: must be at least 1s (got "10ms")'],
    ['RUNLANE_QUEUE_TIMEOUT', '25d', 'RUNLANE_QUEUE_TIMEOUT: must be at most 24d (got "25d")'],
    ['PORT', '70000', 'PORT: must be from 0 to 65535 (got "70000")'],
    ['PORT', '80\r', 'PORT: has spaces or a line break around it (got "80\\r")'],
  ])('is explained: %s=%j', (name, text, message) => {
    expect(problemsOf({ [name]: text }).message).toBe(message)
  })

  test('is reported with all the others, one line each', () => {
    const error = problemsOf({ RUNLANE_LEASES: '5s', PORT: 'x', HOST: '::', RUNLANE_LEASE: '5' })

    expect(error.problems.map(({ name }) => name)).toEqual([
      'RUNLANE_LEASES',
      'PORT',
      'RUNLANE_LEASE',
    ])
    expect(error.message.split('\n')).toEqual(error.problems.map(({ message }) => message))
  })

  test.each([
    ['DATABASE_URL', 'postgres://u:hunter2%@h/db'],
    ['DATABASE_URL', 'postgres://u:hunter2@h:99999/db'],
    ['DATABASE_URL', ' postgres://u:hunter2@h/db'],
    ['RUNLANE_ADMIN_TOKEN', 'hunter2'],
    ['RUNLANE_JWT_SECRET', 'hunter2'],
    ['RUNLANE_JWKS_URL', 'https://u:hunter2@h/keys'],
    ['RUNLANE_WEBHOOK_SECRET', 'whsec_hunter2'],
    ['RUNLANE_WEBHOOK_URLS', 'https://h/hunter2'],
    ['RUNLANE_WEBHOOK_URLS', 'h?key=hunter2'],
    ['RUNLANE_ADMIN_TOKENS', 'hunter2'],
  ])('does not show a secret: %s', (name, text) => {
    const error = problemsOf({ [name]: text })

    expect(`${error.stack} ${JSON.stringify(error)}`).not.toContain('hunter2')
  })
})

describe('an unknown RUNLANE_ name', () => {
  test.each([
    ['RUNLANE_LEASES', 'unknown setting RUNLANE_LEASES, did you mean RUNLANE_LEASE?'],
    ['RUNLANE_RETNETION', 'unknown setting RUNLANE_RETNETION, did you mean RUNLANE_RETENTION?'],
    ['RUNLANE_PORT', 'unknown setting RUNLANE_PORT, did you mean PORT?'],
    ['runlane_lease', 'unknown setting runlane_lease, did you mean RUNLANE_LEASE?'],
    ['RUNLANE_COLOUR_SCHEME', 'unknown setting RUNLANE_COLOUR_SCHEME'],
  ])('stops the start: %s', (name, message) => {
    expect(problemsOf({ [name]: 'x' }).problems).toEqual([{ name, message }])
  })

  test('stops the start even when it is empty, but not when it is undefined', () => {
    expect(problemsOf({ RUNLANE_LEASES: '' }).problems).toHaveLength(1)
    expect(parse({ RUNLANE_LEASES: undefined })).toEqual(parse())
  })
})

describe('the table of settings', () => {
  test('lists every variable of the contract with its default, in order', () => {
    const [head, rule, ...rows] = configTable().trimEnd().split('\n')
    const cells = rows.map((row) => row.split('|').map((text) => text.trim().replaceAll('`', '')))

    expect([head, rule]).toEqual(['| variable | default | meaning |', '| --- | --- | --- |'])
    expect(cells.map(([, name, fallback]) => [name, fallback])).toEqual(
      contract.map(([name, , fallback]) => [name, fallback]),
    )
    expect(cells.every(({ length, 3: meaning }) => length === 5 && meaning !== '')).toBe(true)
  })
})
