import type { Below } from '../../store/reconcile.ts'
import { type HostedRow, isTerminal } from '../../store/rows.ts'
import type { Host } from '../run/host.ts'
import type { Hosted } from '../run/hosted.ts'
import type { Logger } from '../log.ts'
import type { Mailroom } from '../commands/mailroom.ts'
import type { RunMessage } from '../run/messages.ts'
import { retried } from '../retried.ts'

/** How often it is looked below a run, at most: each look takes runs from their executors, or ends some. */
const LOOKS = 100
/** Runs that are read and ended at the same time. */
const BATCH = 500

/** Runs that are cut off, and of these the ones whose children have been looked for since. */
interface Seen {
  cut: ReadonlySet<string>
  known: ReadonlySet<string>
}

export interface ForcedEndsOptions {
  nodeId: string
  parts: () => { host: Host; mailroom: Mailroom }
  epoch: () => number
  loadRuns: (runIds: string[]) => Promise<HostedRow[]>
  /** The runs that it and those below it have delegated and that are not over, the deepest first. */
  loadBelow: (runId: string) => Promise<Below[]>
  /** Takes runs from other nodes, `version`: as it was seen; answers those that this one has. */
  seizeRuns: (runIds: string[], version: number | null) => Promise<string[]>
  log: Logger
}

/**
 * Ends runs that their executors do not end: the one place where that is done. It is decided in one step: the chart takes
 * the end now, and the run is cut off from its executor in the same moment, or nothing is touched. A run of this node is
 * seized in memory, another node's in the database, under the owner and version that were seen: whatever its executor still
 * writes is refused from then on. What is cut off delegates no more, so what is below it is known then, and ends before it,
 * from the leaves up. Its lane is free only with the end itself.
 *
 * Failure semantics: nothing is decided before its commit. A node that dies between leaves runs that are adopted, and the
 * letter that asked for their end.
 */
export class ForcedEnds {
  #options: ForcedEndsOptions
  /** Runs taken from other nodes, until they have ended. */
  #taken = new Set<string>()

  constructor(options: ForcedEndsOptions) {
    this.#options = options
  }

  /** It was taken from another node to be ended here: no actor has it. */
  isEnding(runId: string): boolean {
    return this.#taken.has(runId)
  }

  /** False when it is not as it was seen any more, or its chart refuses: then nothing was touched. */
  async end(runId: string, version: number | null, messages: RunMessage[]): Promise<boolean> {
    const { parts, epoch, loadRuns } = this.#options
    const { host, mailroom } = parts()
    const hosted = host.find(runId)
    if (hosted) return this.endHosted(hosted, messages) ?? false
    const [row] = await loadRuns([runId])
    if (!row || (version !== null && row.version !== version)) return false
    if (!mailroom.accepts(row, messages)) return false
    const isForeign = row.owner_epoch !== null && row.owner_epoch !== epoch()
    if (!isForeign && row.children === 0) return mailroom.end(row, messages)
    try {
      if (isForeign && (await this.#take([row], row.version)).length === 0) return false
      await this.endBelow(runId)
      const [now] = await retried(() => loadRuns([runId]))
      return now !== undefined && (await mailroom.end(now, messages))
    } finally {
      this.#taken.delete(runId)
    }
  }

  /** Null when its chart does not take these messages now: nothing was touched. */
  endHosted(hosted: Hosted, messages: RunMessage[]): Promise<boolean> | null {
    return hosted.seize(messages) ? this.#endSeized(hosted, messages) : null
  }

  async #endSeized(hosted: Hosted, messages: RunMessage[]): Promise<boolean> {
    const { ledger } = hosted
    // What it had delegated is there when that is committed.
    await hosted.committed()
    if (ledger.fields.children > 0) await this.endBelow(ledger.runId)
    return hosted.end(messages)
  }

  /** Ends what a run has delegated, all that is still open. Never throws: what is left then is told to end by letters. */
  async endBelow(runId: string): Promise<void> {
    const { loadBelow, log } = this.#options
    const cut = new Set<string>()
    try {
      for (let look = 0; look < LOOKS; look += 1) {
        const below = await retried(() => loadBelow(runId))
        if (below.length === 0) return
        // What these had delegated is in this look; of those that are cut off now it is in the next one.
        const known = new Set(cut)
        await this.#cutOff(runId, below, cut)
        await this.#endUpwards(runId, below, { cut, known })
      }
      log.warn({ run_id: runId }, 'not all that it has delegated could be ended by force')
    } catch (error) {
      const problem = String(error)
      log.warn({ run_id: runId, problem }, 'what it has delegated could not be ended by force')
    } finally {
      for (const id of cut) this.#taken.delete(id)
    }
  }

  /** Takes from their executors what is not taken yet, all at once. */
  async #cutOff(above: string, below: readonly Below[], cut: Set<string>): Promise<void> {
    const { host } = this.#options.parts()
    const messages = this.#goneAbove(above)
    const begun = below.filter(({ run_id }) => !cut.has(run_id))
    const seized = begun.flatMap(({ run_id }) => {
      const hosted = host.find(run_id)
      return hosted?.seize(messages) ? hosted : []
    })
    const others = begun.filter((one) => one.owner_epoch !== null && !host.has(one.run_id))
    const taken = await this.#take(others, null)
    await Promise.all(seized.map((hosted) => hosted.committed()))
    for (const hosted of seized) cut.add(hosted.ledger.runId)
    for (const runId of taken) cut.add(runId)
  }

  async #take(runs: readonly { run_id: string }[], version: number | null): Promise<string[]> {
    if (runs.length === 0) return []
    const runIds = runs.map(({ run_id }) => run_id)
    for (const runId of runIds) this.#taken.add(runId)
    let taken: string[] = []
    try {
      taken = await retried(() => this.#options.seizeRuns(runIds, version))
    } finally {
      for (const runId of runIds) if (!taken.includes(runId)) this.#taken.delete(runId)
    }
    return taken
  }

  /**
   * Layer by layer, those first that have nothing below them: among them what has not begun yet, and so never will.
   * Nothing ends before all that is below it.
   */
  async #endUpwards(above: string, below: readonly Below[], seen: Seen): Promise<void> {
    for (const layer of layersOf(below)) {
      let isOver = true
      for (let nth = 0; nth < layer.length; nth += BATCH) {
        const ended = await this.#endBatch(above, layer.slice(nth, nth + BATCH), seen)
        isOver &&= ended.every(Boolean)
      }
      if (!isOver) return
    }
  }

  /** False of those that are not over: another look finds what has become of them. */
  async #endBatch(above: string, runIds: string[], { cut, known }: Seen): Promise<boolean[]> {
    const { parts, epoch, loadRuns } = this.#options
    const { host, mailroom } = parts()
    const messages = this.#goneAbove(above)
    const endHere = async (hosted: Hosted): Promise<boolean> => {
      const { runId } = hosted.ledger
      if (known.has(runId)) return hosted.end(messages)
      // It is ended by force for another reason, or about to be parked or handed over.
      if (!cut.has(runId) && (hosted.seized || !hosted.isActive)) await hosted.left
      return false
    }
    const endRow = async (row: HostedRow): Promise<boolean> => {
      if (isTerminal(row.status)) return true
      // Nothing of it is active: asked to end, it has ended.
      if (row.owner_epoch === null) return mailroom.end(row, messages.slice(0, 1))
      const isCut = known.has(row.run_id) || !cut.has(row.run_id)
      return isCut && row.owner_epoch === epoch() && mailroom.end(row, messages)
    }
    const here = runIds.flatMap((runId) => host.find(runId) ?? []).map(endHere)
    const elsewhere = runIds.filter((runId) => !host.has(runId))
    const rows = elsewhere.length === 0 ? [] : await retried(() => loadRuns(elsewhere))
    return Promise.all([...here, ...rows.map(endRow)])
  }

  #goneAbove(by: string): RunMessage[] {
    const reason = 'the run above it was ended by force'
    const { nodeId: node_id } = this.#options
    return [{ type: 'cancel.requested', by, reason, node_id }, { type: 'cancel.expired' }]
  }
}

/** Run ids by how much is below them: the first layer has nothing, the next one only that. */
function layersOf(below: readonly Below[]): string[][] {
  const heights = new Map<string, number>()
  const layers: string[][] = []
  // The deepest come first, so all that is below a run has been counted when it comes.
  for (const { run_id, parent_run_id } of below) {
    const height = heights.get(run_id) ?? 0
    heights.set(parent_run_id, Math.max(heights.get(parent_run_id) ?? 0, height + 1))
    const layer = layers[height] ?? []
    layers[height] = layer
    layer.push(run_id)
  }
  return layers
}
