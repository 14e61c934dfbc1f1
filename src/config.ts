import { isIP } from 'node:net'
import type { z } from 'zod'
import { nearest } from './nearest.ts'
import { oneLine } from './setting-values.ts'
import { type Setting, settings } from './settings.ts'

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
  const parsed = values as Parsed
  if (parsed.webhookUrls && parsed.webhookSecret === null && problems.length === 0) {
    const name = settings.webhookUrls.name
    problems.push({ name, message: `${name}: needs ${settings.webhookSecret.name}, to sign with` })
  }
  if (problems.length > 0) throw new ConfigError(problems)

  return Object.freeze({
    ...parsed,
    nodeId: parsed.nodeId ?? `${defaults.host}-${defaults.pid}`,
    webhookUrls: parsed.webhookUrls ?? [],
    webhookAllow: parsed.webhookAllow ?? (isLoopback(parsed.host) ? LOOPBACK : []),
  })
}

/**
 * All settings, read once at start and passed down. Names end in their unit: `…Ms` milliseconds,
 * `…Bytes` bytes; `null` is unset (`retentionMs`: keep for ever). `settings` has their meaning.
 */
export type Config = Readonly<
  Omit<Parsed, 'nodeId' | 'webhookAllow' | 'webhookUrls'> & {
    nodeId: string
    webhookAllow: readonly string[]
    webhookUrls: readonly string[]
  }
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

/** What is in force, as the variables would say it, for the log; of a secret only that it is set. */
export const shownSettings = (
  env: Readonly<Record<string, string | undefined>>,
): Record<string, string> =>
  Object.fromEntries(
    Object.values<Setting>(settings).flatMap(({ name, fallback, secret }) => {
      const text = env[name] || fallback
      return text === null ? [] : [[name, secret ? '[set]' : text]]
    }),
  )

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

type Parsed = {
  [K in keyof typeof settings]:
    | z.output<(typeof settings)[K]['schema']>
    | ((typeof settings)[K]['fallback'] extends null ? null : never)
}
