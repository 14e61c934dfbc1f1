import { Command, CommanderError } from 'commander'
import { RunlaneError } from '../client/index.ts'
import { connect, type GlobalOptions, TOKEN_FILE } from './connection.ts'
import type { Context, Does, Warning } from './context.ts'
import { EXIT, type Io, UsageError } from './io.ts'
import { machineCommand } from './machine.ts'
import { documentOf, wordsOf } from './refusal.ts'
import { runCommand } from './run.ts'
import { statusCommand } from './status.ts'
import { jsonLine, printable } from './text.ts'

const HELP = `
Address: --url, else RUNLANE_URL, else http://127.0.0.1:7420.
Token: --token, --token-file, RUNLANE_TOKEN; for a service on this machine the file ${TOKEN_FILE} in the current folder.
A token on the command line is seen by other users of the machine: rather give it by file or environment.
RUNLANE_URL and RUNLANE_TOKEN are settings of this command alone: set for the service, they stop its start.

Exit codes: 0 done; 1 refused or failed; 2 called wrongly; 3 the service cannot be reached;
4 what --wait waited for did not complete; 130 ended by Ctrl-C.`

/** Carries out one command line. Never rejects; answers the exit code. */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  let code: number = EXIT.ok
  let tokenOf: string | undefined
  const does: Does = (command, handler) =>
    command.action(async () => {
      const context = await contextOf(command.optsWithGlobals(), io)
      tokenOf = context.tokenOf
      code = await handler(context, command.args, command.opts())
    })
  const program = new Command('runlane')
    .description('Posts, watches and steers runs of a Runlane service, over its HTTP contract.')
    .version(io.version, '-V, --version', 'print the version of this command')
    .option('--url <address>', 'address of the service')
    .option('--token <token>', 'API token or JWT')
    .option('--token-file <path>', 'file that holds the token')
    .option('--json', 'for programs: one JSON value on a line')
    .addHelpText('after', HELP)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void io.write(text).catch(() => {}),
      writeErr: (text) => io.note(text.trimEnd()),
    })
    .showHelpAfterError('(--help says more)')
  // Made by createCommand, so that they inherit how errors end and where text goes.
  runCommand(program.command('run'), does)
  statusCommand(program.command('status'), does)
  machineCommand(program.command('machine'), does)
  try {
    await program.parseAsync(argv, { from: 'user' })
    return code
  } catch (error) {
    return codeOf(error, program.opts(), io, tokenOf)
  }
}

async function contextOf(options: GlobalOptions, io: Io): Promise<Context> {
  const json = options.json === true
  return {
    ...(await connect(options, io)),
    io,
    json,
    print: (value, text) => io.write(json ? jsonLine(value) : text()),
    warn: (warning) => io.note(json ? errorLine(warning) : warningText(warning)),
  }
}

const errorLine = (error: object): string => jsonLine({ error }).trimEnd()
const warningText = ({ detail, next }: Warning): string =>
  [detail, ...(next === undefined ? [] : [`next: ${next}`])]
    .map((line, nth) => `${nth === 0 ? 'runlane: ' : '  '}${printable(line)}`)
    .join('\n')

/** Says what went wrong, for people or for programs. */
function codeOf(
  error: unknown,
  options: GlobalOptions,
  io: Io,
  tokenOf: string | undefined,
): number {
  if (io.ended.aborted) return EXIT.interrupted
  // It has said what it had to say; asked for help it ends this way too.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
  if (error instanceof UsageError || error instanceof TypeError) {
    io.note(`runlane: ${printable(error.message)}`)
    return EXIT.usage
  }
  if (!(error instanceof RunlaneError)) {
    io.note(`runlane: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`)
    return EXIT.failed
  }
  io.note(options.json ? errorLine(documentOf(error)) : wordsOf(error, tokenOf))
  return error.code === 'unreachable' ? EXIT.unreachable : EXIT.failed
}
