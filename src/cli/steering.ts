import { type Command, Option } from 'commander'
import { duration, resolved, waitOption } from './options.ts'
import type { Does } from './context.ts'
import {
  cancel,
  extend,
  fork,
  interrupt,
  recycle,
  respond,
  resume,
  sendSignal,
  stop,
  sweep,
} from './steer.ts'

const TARGET = '<run_or_conversation_id>'

/** What steers runs, under `runlane run`. */
export function steeringCommands(command: Command, does: Does): void {
  const steering = (name: string, description: string): Command =>
    command
      .command(name)
      .description(description)
      .option('--reason <text>', 'for the audit trail')
      .option('--key <key>', 'Idempotency-Key: given twice under one key, it is one command')
  const ending = (name: string, description: string): Command =>
    steering(name, description).addOption(waitOption('waits until it is over'))

  does(ending('cancel', 'cancels a run at its next safe boundary').argument('<run_id>'), cancel)
  does(
    ending('resume', 'puts a failed or timed-out run back in line, to go on from its records')
      .argument('<run_id>')
      .option('--preview', 'only shows what would be replayed, and what is in its way')
      .option(
        '--resolve <call=outcome[:json]>',
        'settles a call of unknown outcome: succeeded (with its result), failed or retry',
        resolved,
      ),
    resume,
  )
  does(
    steering('fork', 'makes a new run from a checkpoint of a run, in a lane of its own (operators)')
      .argument('<run_id>')
      .requiredOption('--checkpoint <checkpoint_id>', 'what was recorded up to it is replayed')
      .option('--input <json>', 'instead of that of the run: JSON, @file, or - for stdin')
      .addOption(waitOption('waits until it is over, and exits with 4 unless it completed')),
    fork,
  )
  does(
    command
      .command('respond')
      .description('answers what a run asks: what became of a call, or a question of its agent')
      .argument('<run_id>')
      .addOption(
        new Option(
          '--outcome <outcome>',
          'of a call of unknown outcome; retry makes it again',
        ).choices(['succeeded', 'failed', 'retry']),
      )
      .option('--result <json>', 'of a call that succeeded: JSON, @file, or - for stdin')
      .option('--answer <json>', 'to any other question: JSON, @file, or -')
      .option('--question <token_id>', 'which, where it asks several')
      .option('--key <key>', 'Idempotency-Key: given twice under one key, it is one answer')
      .addOption(waitOption('waits until it is over, and exits with 4 unless it completed')),
    respond,
  )
  does(
    command
      .command('signal')
      .description('sends a signal to the code of a run, which keeps it until it asks for it')
      .argument('<run_id>')
      .argument('<name>', 'what the code calls it')
      .argument('[json]', 'what it gets: JSON, @file, or - for stdin; default null')
      .option('--key <key>', 'Idempotency-Key: given twice under one key, it is one signal')
      .addOption(waitOption('waits until it is over, and exits with 4 unless it completed')),
    sendSignal,
  )
  does(
    steering('extend', 'gives an active run more time than the watchdog would (operators)')
      .argument('<run_id>')
      .addOption(
        new Option('--by <duration>', 'how much, such as 10m')
          .argParser(duration)
          .makeOptionMandatory(),
      ),
    extend,
  )
  does(ending('stop', 'ends a run after its current step (admins)').argument(TARGET), stop)
  does(
    ending(
      'interrupt',
      'cancels a child run alone; its parent goes on as it decides (admins)',
    ).argument('<run_id>'),
    interrupt,
  )
  does(
    ending('recycle', 'ends a stuck run by force (admins)')
      .argument(TARGET)
      .option('--force', 'one too that is active and not stuck'),
    recycle,
  )
  does(steering('sweep', 'recycles every stuck run (admins)'), sweep)
}
