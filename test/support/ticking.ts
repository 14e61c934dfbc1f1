import { Audience } from '../../src/runtime/supervision/audience.ts'
import { Readers } from '../../src/runtime/supervision/readers.ts'
import { Reconciler } from '../../src/runtime/supervision/reconciler.ts'
import { Supervisor } from '../../src/runtime/supervision/supervisor.ts'
import type { Watchdog } from '../../src/runtime/supervision/watchdog.ts'

const silent = { info: () => {}, warn: () => {}, error: () => {} }

/** A supervisor that looks every second, by the ticks of the test alone, and has nothing to reconcile. */
export function ticking(
  watchdog: Watchdog,
  monotonicMs: () => number,
  tellSystemic: (what: string | null) => void = () => {},
): Supervisor {
  const supervisor = new Supervisor({
    watchdog,
    reconciler: new Reconciler({
      rules: [],
      takeTurn: async () => true,
      giveTurnBack: async () => {},
      log: silent,
    }),
    audience: new Audience({
      nodeId: 'test',
      runs: () => [],
      readers: new Readers({
        noteReadings: async () => {},
        readLately: async () => [],
        forgetReadings: async () => {},
        keepMs: 0,
        monotonicMs,
      }),
      graceMs: 30_000,
      monotonicMs,
    }),
    askEveryMs: 5_000,
    lookEveryMs: 1_000,
    reconcileEveryMs: 300_000,
    monotonicMs,
    tellSystemic,
    log: silent,
  })
  supervisor.actor.start()
  supervisor.actor.send({ type: 'supervisor.started', at: monotonicMs() })
  return supervisor
}
