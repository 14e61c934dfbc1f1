import { type Client, createClient } from '../client/index.ts'
import { type Io, UsageError } from './io.ts'

const DEFAULT_URL = 'http://127.0.0.1:7420'
/** Where a service on this machine, started in this folder, keeps the token that it made for itself. */
export const TOKEN_FILE = '.runlane/admin-token'

/** Options of every command. */
export interface GlobalOptions {
  readonly url?: string
  readonly token?: string
  readonly tokenFile?: string
  readonly json?: boolean
}

export interface Connection {
  readonly client: Client
  readonly url: string
  /** Where the token came from, in words; undefined: there is none. */
  readonly tokenOf: string | undefined
}

/**
 * Which service, and as whom: options before environment before what lies in the folder. Two attempts more for what fails
 * in passing: whoever types a command rather knows soon.
 * @throws {UsageError}
 */
export async function connect(options: GlobalOptions, io: Io): Promise<Connection> {
  const url = options.url || io.environment['RUNLANE_URL'] || DEFAULT_URL
  const address = URL.parse(url)
  if (!address) throw new UsageError(`--url ${url} is not an address`)
  const found = await tokenFor(address, options, io)
  try {
    const client = createClient({ url, token: found?.token, retries: 2, outageMs: Infinity })
    return { client, url, tokenOf: found?.from }
  } catch (error) {
    throw new UsageError(`--url ${url}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function tokenFor(
  address: URL,
  { token, tokenFile }: GlobalOptions,
  { environment, readFile }: Io,
): Promise<{ token: string; from: string } | undefined> {
  const given = [
    { token, from: '--token' },
    { token: tokenFile && (await tokenIn(tokenFile, readFile, true)), from: tokenFile ?? '' },
    { token: environment['RUNLANE_TOKEN'], from: 'RUNLANE_TOKEN' },
    // It opens the service of this folder, and is nobody else's business.
    {
      token: isLoopback(address) ? await tokenIn(TOKEN_FILE, readFile, false) : '',
      from: TOKEN_FILE,
    },
  ]
  for (const one of given) {
    const text = one.token?.trim() ?? ''
    if (/[^\x21-\x7E]/.test(text)) throw new UsageError(`${one.from} does not hold a token`)
    if (text !== '') return { token: text, from: one.from }
  }
  return undefined
}

async function tokenIn(path: string, readFile: Io['readFile'], must: boolean): Promise<string> {
  try {
    return await readFile(path)
  } catch (error) {
    if (!must) return ''
    throw new UsageError(`--token-file: ${error instanceof Error ? error.message : String(error)}`)
  }
}

const isLoopback = ({ hostname }: URL): boolean =>
  hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
