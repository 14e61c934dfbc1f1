/**
 * The known word most like a mistyped one, for "did you mean …?"; undefined when none is close.
 *
 * Close means a Damerau–Levenshtein distance (a swap of neighbours counts once) of at most two, or
 * a third of the word's length if that is more. Case counts. The first of equally near words wins.
 */
export const nearest = (word: string, known: Iterable<string>): string | undefined => {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    // The difference in length is a lower bound; it keeps a hostile, very long word cheap.
    if (Math.abs(candidate.length - word.length) >= bestDistance) continue
    const found = distance(word, candidate)
    if (found >= bestDistance) continue
    best = candidate
    bestDistance = found
  }
  return best
}

/** Cells outside the table are unreachable, so the edges need no special case. */
const cell = (row: readonly number[], column: number): number => row[column] ?? Infinity

const distance = (from: string, to: string): number => {
  let beforeLast: number[] = []
  let last = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (let i = 1; i <= from.length; i++) {
    const row = [i]
    for (let j = 1; j <= to.length; j++) {
      const changed = cell(last, j - 1) + (from[i - 1] === to[j - 1] ? 0 : 1)
      const swap = from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]
      const swapped = swap ? cell(beforeLast, j - 2) + 1 : Infinity
      row.push(Math.min(cell(last, j) + 1, cell(row, j - 1) + 1, changed, swapped))
    }
    beforeLast = last
    last = row
  }
  return cell(last, to.length)
}
