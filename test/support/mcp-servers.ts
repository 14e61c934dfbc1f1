import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, request as forward } from 'node:http'
import { type AddressInfo, createServer as createSocketServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { eventually } from './eventually.ts'

/** `@modelcontextprotocol/server-everything` over streamable HTTP, behind a proxy that notes what is sent to it. */
export const startEverything = async (): Promise<{
  url: string
  /** Bodies of the requests so far; live. */
  received: readonly string[]
  /** Ends the server and starts another one at the same address, which knows nothing of the sessions of the first. */
  restart(): Promise<void>
  stop(): Promise<void>
}> => {
  const script = fileURLToPath(
    import.meta.resolve('@modelcontextprotocol/server-everything/dist/index.js'),
  )
  const port = await freePort()
  const begin = () =>
    spawn(process.execPath, [script, 'streamableHttp'], {
      env: { PATH: process.env['PATH'], PORT: String(port) },
      stdio: 'ignore',
    })
  const listens = () =>
    eventually(async () => (await fetch(`http://127.0.0.1:${port}/mcp`)).status === 400)
  let child = begin()
  const end = async (): Promise<void> => {
    const exited = once(child, 'exit')
    if (child.kill('SIGKILL')) await exited
  }
  const received: string[] = []
  const proxy = createServer((incoming, answer) => {
    const { method, headers, url } = incoming
    const onward = forward({ port, host: '127.0.0.1', method, headers, path: url }, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers)
      response.pipe(answer)
    })
    onward.on('error', () => answer.destroy())
    answer.on('close', () => onward.destroy())
    let body = ''
    incoming.setEncoding('utf8').on('data', (text: string) => {
      body += text
      onward.write(text)
    })
    incoming.on('end', () => {
      received.push(body)
      onward.end()
    })
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}/mcp`
  await listens()
  return {
    url,
    received,
    restart: async () => {
      await end()
      child = begin()
      await listens()
    },
    stop: async () => {
      proxy.close()
      proxy.closeAllConnections()
      await end()
    },
  }
}

const freePort = async (): Promise<number> => {
  const server = createSocketServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Processes that this one has started and whose command line has these words in it. */
export const childrenOf = (pid: number, words: string): number[] =>
  execFileSync('ps', ['-axo', 'pid=,ppid=,args='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line))
    .filter((found) => Number(found?.[2]) === pid && found?.[3]?.includes(words))
    .map((found) => Number(found?.[1]))

export const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
