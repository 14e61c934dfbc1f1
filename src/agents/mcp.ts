import {
  Client,
  type CallToolResult,
  SdkError,
  SdkErrorCode,
  SdkHttpError,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { parseDuration } from '../duration.ts'
import { messageOf } from '../errors.ts'
import type { Json } from '../json.ts'
import type { Effects } from '../store/rows.ts'
import { type JsonSchema, type McpServer, RunError, type Tool } from './agent.ts'

/** A connection that nobody used for so long is closed. */
const IDLE_MS = 5 * 60_000
const CONNECT_TIMEOUT_MS = 30_000
const CALL_TIMEOUT = '5m'

export interface McpOptions {
  version: string
  /** Reaches servers by URL; agents that are posted get one that refuses private addresses. */
  fetch?: typeof fetch
  /** Told of each server process, so that somebody outlives us to end it. */
  onProcess?: (pid: number, alive: boolean) => void
}

interface Connection {
  client: Client
  tools: [string, Tool<never>][] | null
  usedAt: number
  busy: number
}

/**
 * Connections to MCP servers, made when a tool of theirs is first needed and shared by the runs beside each other. A
 * server that is gone is connected to anew by the next call.
 */
export class McpConnections {
  #options: McpOptions
  #open = new Map<string, Promise<Connection>>()
  #sweeper: ReturnType<typeof setInterval> | null = null

  constructor(options: McpOptions) {
    this.#options = options
  }

  /** Its tools by the names that the agent knows them by. @throws RunError `mcp_unavailable` */
  async tools(server: McpServer, signal: AbortSignal): Promise<[string, Tool<never>][]> {
    return this.#with(server, signal, async (connection) => {
      connection.tools ??= await this.#list(connection.client, server, signal)
      return connection.tools
    }).catch((error: unknown) => {
      signal.throwIfAborted()
      throw new RunError('mcp_unavailable', `the MCP server ${nameOf(server)}: ${messageOf(error)}`)
    })
  }

  async close(): Promise<void> {
    if (this.#sweeper) clearInterval(this.#sweeper)
    const open = [...this.#open.values()]
    this.#open.clear()
    await Promise.allSettled(open.map(async (one) => (await one).client.close()))
  }

  async #list(
    client: Client,
    server: McpServer,
    signal: AbortSignal,
  ): Promise<[string, Tool<never>][]> {
    const { tools } = await client.listTools({}, { signal, timeout: CONNECT_TIMEOUT_MS })
    return tools.map((tool) => [
      server.prefix === undefined ? tool.name : `${server.prefix}_${tool.name}`,
      {
        description: tool.description ?? '',
        input_schema: tool.inputSchema as JsonSchema,
        effects: effectsOf(tool.annotations),
        ...(server.timeout === undefined ? {} : { silence_ms: parseDuration(server.timeout) }),
        execute: (input: Json, { signal: ends, progress }) =>
          this.#call(server, tool.name, input, ends, progress),
      } satisfies Tool as Tool<never>,
    ])
  }

  /** An abort sends `notifications/cancelled`, or closes the response stream where that is the cancel. */
  async #call(
    server: McpServer,
    name: string,
    input: Json,
    signal: AbortSignal,
    progress: (note: string) => void,
  ): Promise<Json> {
    return this.#with(server, signal, async ({ client }) => {
      const result = await client.callTool(
        { name, arguments: (input ?? {}) as Record<string, unknown> },
        {
          signal,
          timeout: parseDuration(server.timeout ?? CALL_TIMEOUT),
          resetTimeoutOnProgress: true,
          onprogress: (report) => progress(noteOf(report)),
        },
      )
      return valueOf(result)
    })
  }

  async #with<T>(
    server: McpServer,
    signal: AbortSignal,
    work: (connection: Connection) => Promise<T>,
  ): Promise<T> {
    for (let tries = 0; ; tries += 1) {
      const connection = await unlessAborted(this.#connection(server), signal)
      connection.busy += 1
      try {
        return await work(connection)
      } catch (error) {
        // A server that was started anew does not know the session of the old one: it has refused the request.
        if (!isBroken(error)) throw error
        this.#forget(server, connection)
        if (tries > 0 || !hasLostSession(error)) throw error
      } finally {
        connection.busy -= 1
        connection.usedAt = performance.now()
      }
    }
  }

  /** The next call connects anew. */
  #forget(server: McpServer, connection: Connection): void {
    const key = JSON.stringify(server)
    const open = this.#open.get(key)
    void open?.then((known) => {
      if (known === connection && this.#open.get(key) === open) this.#open.delete(key)
    })
    void connection.client.close().catch(() => {})
  }

  #connection(server: McpServer): Promise<Connection> {
    const key = JSON.stringify(server)
    const known = this.#open.get(key)
    if (known) return known
    const made = this.#connect(server, () => {
      if (this.#open.get(key) === made) this.#open.delete(key)
    })
    this.#open.set(key, made)
    made.catch(() => this.#open.delete(key))
    this.#sweeper ??= setInterval(() => void this.#sweep(), IDLE_MS / 5).unref()
    return made
  }

  async #connect(server: McpServer, onClose: () => void): Promise<Connection> {
    const client = new Client(
      { name: 'runlane', version: this.#options.version },
      {
        capabilities: {},
        listChanged: { tools: { autoRefresh: false, onChanged: () => (connection.tools = null) } },
      },
    )
    const connection: Connection = { client, tools: null, usedAt: performance.now(), busy: 0 }
    const transport = this.#transport(server)
    await client.connect(transport, { timeout: CONNECT_TIMEOUT_MS })
    const pid = transport instanceof StdioClientTransport ? transport.pid : null
    if (pid !== null) this.#options.onProcess?.(pid, true)
    const onclose = (): void => {
      if (pid !== null) this.#options.onProcess?.(pid, false)
      onClose()
    }
    Object.assign(client, { onclose })
    return connection
  }

  #transport(server: McpServer): StdioClientTransport | StreamableHTTPClientTransport {
    const { url, headers, command, args, env } = server
    if (command !== undefined) {
      return new StdioClientTransport({
        command,
        ...(args === undefined ? {} : { args }),
        ...(env === undefined ? {} : { env }),
        stderr: 'ignore',
      })
    }
    return new StreamableHTTPClientTransport(new URL(url ?? ''), {
      ...(headers === undefined ? {} : { requestInit: { headers } }),
      ...(this.#options.fetch === undefined ? {} : { fetch: this.#options.fetch }),
    })
  }

  async #sweep(): Promise<void> {
    for (const [key, promise] of this.#open) {
      const connection = await promise.catch(() => null)
      const idle = connection && performance.now() - connection.usedAt > IDLE_MS
      if (!idle || connection.busy > 0) continue
      this.#open.delete(key)
      await connection.client.close().catch(() => {})
    }
  }
}

/** The connection, not the tool, has failed. */
const isBroken = (error: unknown): boolean =>
  error instanceof SdkHttpError ||
  error instanceof TypeError ||
  (error instanceof SdkError &&
    [SdkErrorCode.NotConnected, SdkErrorCode.ConnectionClosed, SdkErrorCode.SendFailed].includes(
      error.code,
    ))

/** 404 by the protocol; 400 is what many servers say. Both before they do anything. */
const hasLostSession = (error: unknown): boolean =>
  error instanceof SdkHttpError && (error.status === 404 || error.status === 400)

const nameOf = ({ url, command }: McpServer): string => url ?? command ?? ''

/** What the server says of its own tool is believed: it was chosen by whoever wrote the agent. */
function effectsOf(
  hints: { readOnlyHint?: boolean | undefined; idempotentHint?: boolean | undefined } | undefined,
): Effects {
  if (hints?.readOnlyHint === true) return 'none'
  return hints?.idempotentHint === true ? 'idempotent' : 'unsafe'
}

function noteOf(report: {
  progress: number
  total?: number | undefined
  message?: string | undefined
}): string {
  const { progress, total, message } = report
  const numbers = total === undefined ? String(progress) : `${progress}/${total}`
  return message === undefined ? numbers : `${message} (${numbers})`
}

/** Structured content as it is, plain text as text, anything else as the blocks that came. @throws when the tool failed */
function valueOf({ content, structuredContent, isError }: CallToolResult): Json {
  const texts = content.flatMap((block) => (block.type === 'text' ? [block.text] : []))
  if (isError === true) throw new Error(texts.join('\n') || 'the MCP tool failed')
  if (structuredContent !== undefined) return structuredContent as Json
  return texts.length === content.length ? texts.join('\n') : (content as unknown as Json)
}

async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  let stop: (() => void) | undefined
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => reject(signal.reason as Error)
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    if (stop) signal.removeEventListener('abort', stop)
  }
}
