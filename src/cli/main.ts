/** The process of the command line: what it reads, where it writes, and how it ends. */
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import process from 'node:process'
import { EXIT } from './io.ts'
import { run } from './program.ts'

const { version } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string }
const ended = new AbortController()
let readerLeft = false

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // `| head` has seen enough: that is no failure of ours.
  readerLeft = error.code === 'EPIPE'
  if (!readerLeft) process.stderr.write(`runlane: stdout: ${error.message}\n`)
  ended.abort()
})
process.stderr.on('error', () => {})
process.on('SIGINT', () => {
  // The second one is for whatever did not end at the first.
  if (ended.signal.aborted) process.exit(EXIT.interrupted)
  ended.abort()
})

const write = async (text: string): Promise<void> => {
  ended.signal.throwIfAborted()
  if (process.stdout.write(text)) return
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      process.stdout.off('drain', settle)
      ended.signal.removeEventListener('abort', settle)
      if (ended.signal.aborted) reject(ended.signal.reason as Error)
      else resolve()
    }
    process.stdout.once('drain', settle)
    ended.signal.addEventListener('abort', settle, { once: true })
  })
}

const readInput = async (): Promise<string> => {
  const parts: Uint8Array[] = []
  for await (const part of process.stdin as AsyncIterable<Uint8Array>) parts.push(part)
  return Buffer.concat(parts).toString('utf8')
}

const code = await run(process.argv.slice(2), {
  version,
  write,
  note: (line) => process.stderr.write(`${line}\n`),
  readFile: (path) => readFile(path, 'utf8'),
  readInput,
  environment: process.env,
  ended: ended.signal,
})
process.exitCode = readerLeft ? EXIT.ok : code
