import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { onTestFinished } from 'vitest'

const ROOT = resolve(import.meta.dirname, '../..')
const NODE = join(ROOT, 'node_modules/.bin/node')
export const ENTRY = join(ROOT, 'src/cli/runlane.js')

export type CliOptions = {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly stdin?: string
  readonly entry?: string
}

export type CliResult = {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  /** What was printed, one JSON value a line. */
  // oxlint-disable-next-line typescript/no-explicit-any -- judged by the tests, field by field
  readonly json: any[]
}

/** The command line as a process of its own, under way. */
export type Running = {
  readonly stdout: () => string
  readonly stderr: () => string
  readonly kill: (signal: NodeJS.Signals) => void
  readonly ended: Promise<CliResult>
}

/** Away from the checkout, whose own `.runlane` is nobody's business here. */
export const freshFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'runlane-cli-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export const startCli = (args: readonly string[], options: CliOptions = {}): Running => {
  const child = spawn(NODE, [options.entry ?? ENTRY, ...args], {
    cwd: options.cwd ?? freshFolder(),
    env: { PATH: process.env['PATH'] ?? '', ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text))
  child.stdin.on('error', () => {})
  child.stdin.end(options.stdin ?? '')
  const ended = new Promise<CliResult>((settle) => {
    child.once('close', (code) =>
      settle({
        ...{ code, ...output },
        get json() {
          return output.stdout
            .split('\n')
            .filter((line) => line !== '')
            .map((line) => JSON.parse(line))
        },
      }),
    )
  })
  return {
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    kill: (signal) => void child.kill(signal),
    ended,
  }
}

/** Runs it to its end. */
export const cli = (args: readonly string[], options?: CliOptions): Promise<CliResult> =>
  startCli(args, options).ended

/** Of a service of a test. */
export const accessTo = ({ url, token }: { url: string; token: string }) => ({
  RUNLANE_URL: url,
  RUNLANE_TOKEN: token,
})
