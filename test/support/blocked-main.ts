/** A process with a sentinel whose main thread blocks for so long as its argument says, in milliseconds, and then ends. */
import { systemClock } from '../../src/clock.ts'
import { startSentinel } from '../../src/runtime/supervision/sentinel.ts'

const blockMs = Number(process.argv[2])
const { monotonicMs } = systemClock
startSentinel({ nodeId: 'n1', silenceMs: 400, hosted: () => 7, monotonicMs })
// The thread needs a moment to start, and is not to hold the process up.
setTimeout(() => {
  process.stdout.write('blocks\n')
  const until = monotonicMs() + blockMs
  while (monotonicMs() < until);
  process.stdout.write('turns\n')
  setTimeout(() => {}, 1_000)
}, 1_000)
