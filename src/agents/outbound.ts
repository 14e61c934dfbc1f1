import { lookup, type LookupAddress, type LookupAllOptions } from 'node:dns'
import { BlockList, isIP, type LookupFunction } from 'node:net'
import { Agent, fetch as undiciFetch, request } from 'undici'
import { clip } from '../clip.ts'
import { type Json, jsonProblems } from '../json.ts'

/** Addresses that are inside somebody's network: refused unless allowed by name, address or CIDR. */
const PRIVATE_RANGES = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const
const PRIVATE_RANGES_V6 = [
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
  // These carry an IPv4 address, which may be private: compatible, translated, NAT64, Teredo, 6to4.
  ['::', 96],
  ['::ffff:0:0:0', 96],
  ['64:ff9b::', 96],
  ['64:ff9b:1::', 48],
  ['2001::', 32],
  ['2002::', 16],
] as const

/** Bytes of an answer that are read at most. */
const ANSWER_BYTES_MAX = 2_000_000
/** The same where only the status counts. */
const DUMPED_BYTES_MAX = 4_096
const DUMP_MS_MAX = 1_000
/** Characters of an error's text that are passed on: the model can correct itself by them. */
const SAID_LENGTH_MAX = 1_000
const CONNECT_TIMEOUT_MS = 10_000

/** Finds the addresses of a name, as `node:dns` does with `all: true`. */
export type Resolver = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void

/**
 * Requests from agents to the outside. Private addresses are refused twice: when the URL is posted, and again at
 * connect time for what a name resolves to, since a name may resolve to something else by then.
 */
export class Outbound {
  #allowedHosts: Set<string>
  #allowed: BlockList
  #private: BlockList
  #agent: Agent
  #resolve: Resolver

  /** @param allow hosts, addresses and CIDRs that may be private (`RUNLANE_WEBHOOK_ALLOW`) */
  constructor(allow: readonly string[], resolve: Resolver = lookup) {
    this.#resolve = resolve
    this.#allowedHosts = new Set(allow.filter((entry) => isIP(entry) === 0 && !entry.includes('/')))
    this.#allowed = new BlockList()
    for (const entry of allow) addRange(this.#allowed, entry)
    this.#private = new BlockList()
    for (const [address, bits] of PRIVATE_RANGES) this.#private.addSubnet(address, bits, 'ipv4')
    for (const [address, bits] of PRIVATE_RANGES_V6) this.#private.addSubnet(address, bits, 'ipv6')
    this.#agent = new Agent({
      connect: { lookup: this.#checkedLookup, timeout: CONNECT_TIMEOUT_MS },
      headersTimeout: 0,
      bodyTimeout: 0,
    })
  }

  /** Why this URL may not be called, as far as it can be told without resolving its name; undefined when it may. */
  refusal(text: string): string | undefined {
    const url = URL.canParse(text) ? new URL(text) : undefined
    if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:'))
      return 'is not an http or https URL'
    if (url.username !== '' || url.password !== '') return 'must not carry credentials'
    const host = hostOf(url.hostname)
    if (this.#allowedHosts.has(host)) return undefined
    if (isIP(host) !== 0)
      return this.#isRefused(host)
        ? `is a private address (${host}); allow it in RUNLANE_WEBHOOK_ALLOW`
        : undefined
    return host === 'localhost' || host.endsWith('.localhost')
      ? 'is a private address (localhost); allow it in RUNLANE_WEBHOOK_ALLOW'
      : undefined
  }

  /** POSTs JSON and answers the JSON of a 2xx reply. @throws an Error that names the status or what went wrong */
  async post(
    url: string,
    body: Json,
    options: { headers: Record<string, string>; signal: AbortSignal },
  ): Promise<Json> {
    const refused = this.refusal(url)
    if (refused) throw new Error(`${shown(url)} ${refused}`)
    const response = await request(url, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { 'content-type': 'application/json', ...options.headers },
      signal: options.signal,
      dispatcher: this.#agent,
    }).catch(throwPlain)
    if (response.statusCode > 299) {
      const said = await readLimited(response.body).catch(() => '')
      const more = said.trim() === '' ? '' : `: ${clip(said.trim(), SAID_LENGTH_MAX)}`
      throw new Error(`${shown(url)} answered ${response.statusCode}${more}`)
    }
    const text = await readLimited(response.body)
    if (text === '') return null
    const answer = parsed(text)
    if (answer === undefined)
      throw new Error(
        `${shown(url)} answered ${response.statusCode} with something that is not JSON`,
      )
    const [problem] = jsonProblems(answer, 'its answer')
    if (problem) throw new Error(`${shown(url)}: ${problem.path} ${problem.message}`)
    return answer
  }

  /** POSTs a text for its status alone: redirects are not followed, and of the reply's body next to nothing is read. */
  async send(
    url: string,
    text: string,
    options: { headers: Record<string, string>; signal: AbortSignal },
  ): Promise<{ status: number; retryAfter: string | undefined }> {
    const refused = this.refusal(url)
    if (refused) throw new Error(`${shown(url)} ${refused}`)
    const sent = { method: 'POST', body: text, ...options, dispatcher: this.#agent } as const
    const { statusCode, headers, body } = await request(url, sent).catch(throwPlain)
    // A short rest is read, so that the connection can be used again; a long or slow one costs it.
    const signal = AbortSignal.timeout(DUMP_MS_MAX)
    await body.dump({ limit: DUMPED_BYTES_MAX, signal }).catch(() => {})
    const [retryAfter] = [headers['retry-after']].flat()
    return { status: statusCode, retryAfter }
  }

  /** `fetch` with the same two checks; redirects are errors, since they would lead elsewhere. */
  fetch: typeof globalThis.fetch = async (input, init) => {
    const url = input instanceof Request ? input.url : String(input)
    const refused = this.refusal(url)
    if (refused) throw new Error(`${shown(url)} ${refused}`)
    const answer = await undiciFetch(url, {
      ...(init as object),
      redirect: 'error',
      dispatcher: this.#agent,
    }).catch(throwPlain)
    return answer as unknown as Response
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }

  #isRefused(address: string): boolean {
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
    if (mapped) return this.#isRefused(mapped)
    return this.#private.check(address, family) && !this.#allowed.check(address, family)
  }

  #checkedLookup: LookupFunction = (hostname, options, callback) => {
    this.#resolve(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, '', 0)
      const usable = this.#allowedHosts.has(hostOf(hostname))
        ? addresses
        : addresses.filter(({ address }) => !this.#isRefused(address))
      const [first] = usable
      if (!first)
        return callback(
          new Error(`${hostname} resolves to a private address; allow it in RUNLANE_WEBHOOK_ALLOW`),
          '',
          0,
        )
      if (options.all === true) return callback(null, usable)
      callback(null, first.address, first.family)
    })
  }
}

/** Without the brackets of an IPv6 address; `localhost.` is `localhost` to every resolver. */
const hostOf = (hostname: string): string => hostname.replace(/^\[|\]$|\.$/g, '').toLowerCase()

/** As messages have it: models and readers of events get them, and a query may hold a key. */
const shown = (url: string): string => url.replace(/[?#].*$/s, '')

/** `fetch failed`, and an error for each of several addresses, hide what went wrong in a place that nobody shows. */
function throwPlain(error: unknown): never {
  const hidden = error instanceof TypeError ? error.cause : error
  const inner: unknown = hidden instanceof AggregateError ? hidden.errors[0] : hidden
  throw inner instanceof Error ? inner : error
}

function parsed(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json
  } catch {
    return undefined
  }
}

function addRange(list: BlockList, entry: string): void {
  const [address = '', bits] = entry.split('/')
  const version = isIP(address)
  if (version === 0) return
  const family = version === 6 ? 'ipv6' : 'ipv4'
  if (bits === undefined) list.addAddress(address, family)
  else list.addSubnet(address, Number(bits), family)
}

async function readLimited(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of body) {
    size += part.length
    if (size > ANSWER_BYTES_MAX)
      throw new Error(`the answer is larger than ${ANSWER_BYTES_MAX} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
