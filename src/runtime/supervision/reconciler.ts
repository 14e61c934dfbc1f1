import { type Held, isSystemic } from './systemic.ts'
import type { Late } from '../../store/reconcile.ts'
import type { Logger } from '../log.ts'

/** One rule of the reconciler: what it finds in the database or on this node, and what it does about it. */
export interface Rule {
  name: string
  /** May end any number of runs at once: what it finds is nobody's outage. */
  exempt: boolean
  /** At most a batch; `runs` of `of` runs of its class are so. `steadyMs`: since when others could have been heard. */
  find(limit: number, steadyMs: number): Promise<Found>
  /** False when it was not needed any more. */
  act(late: Late): Promise<boolean>
}

export interface Found {
  late: Late[]
  runs: number
  of: number
}

export interface ReconcilerOptions {
  rules: readonly Rule[]
  takeTurn: () => Promise<boolean>
  giveTurnBack: () => Promise<void>
  log: Logger
}

export interface PassReport {
  /** How many each rule has dealt with; those with none are left out. */
  done: Record<string, number>
  held: Held[]
}

/** Runs that one look of a rule takes up. */
const BATCH = 500
/** Looks of one rule in a pass; the next pass goes on. */
const LOOKS_MAX = 20

/**
 * Looks over all runs of all nodes, at the start and every few minutes, for what nobody else would notice. One node at a
 * time. Each decision is made by the chart of its run and counts only if the run is still as it was seen, so a pass that is
 * cut off, or that two nodes make after all, does no harm, and a second one finds nothing to do.
 */
export class Reconciler {
  #options: ReconcilerOptions
  #stopping = false

  constructor(options: ReconcilerOptions) {
    this.#options = options
  }

  stop(): void {
    this.#stopping = true
  }

  /** Null when another node has the turn. */
  async pass(steadyMs: number): Promise<PassReport | null> {
    const { rules, takeTurn, giveTurnBack, log } = this.#options
    const report: PassReport = { done: {}, held: [] }
    try {
      for (const rule of rules) {
        if (this.#stopping || !(await takeTurn())) return null
        const done = await this.#apply(rule, steadyMs, report.held)
        if (done > 0) report.done[rule.name] = done
      }
    } finally {
      await giveTurnBack()
    }
    if (Object.keys(report.done).length > 0) log.info(report.done, 'the reconciler repaired')
    return report
  }

  async #apply(rule: Rule, steadyMs: number, held: Held[]): Promise<number> {
    let done = 0
    for (let looks = 0; looks < LOOKS_MAX && !this.#stopping; looks += 1) {
      const { late, runs, of } = await rule.find(BATCH, steadyMs)
      if (!rule.exempt && isSystemic(runs, of)) {
        held.push({ rule: rule.name, runs, of })
        return done
      }
      let dealtWith = 0
      for (const one of late) {
        if (this.#stopping) break
        if (await rule.act(one)) dealtWith += 1
      }
      done += dealtWith
      if (late.length < BATCH || dealtWith === 0) break
    }
    return done
  }
}
