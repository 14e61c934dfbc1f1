/** Fewer runs than this are judged one by one. */
const RUNS_MIN = 20

/**
 * Too many runs of a class would be ended at once for each of them to be to blame: an outage of a database or a provider
 * is not 500 stuck agents.
 */
export const isSystemic = (tripping: number, ofClass: number): boolean =>
  tripping >= RUNS_MIN && tripping * 2 > ofClass

/** What a class of runs is spared for, for people: `tool: 60 of 100 runs`. */
export interface Held {
  rule: string
  runs: number
  of: number
}

export const heldText = (held: readonly Held[]): string =>
  held.map(({ rule, runs, of }) => `${rule}: ${runs} of ${of} runs`).join(', ')

/** The class of all runs of a node. */
export const EVERYBODY = 'all'

/** Of such a text, the part by which the runs of this class are spared; null: they are not. */
export const sparedClass = (text: string, rule: string): string | null =>
  text.split(', ').find((part) => [EVERYBODY, rule].some((one) => part.startsWith(`${one}: `))) ??
  null
