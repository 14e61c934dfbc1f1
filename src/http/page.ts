/**
 * A page of a list, and where the next one begins: of rows that were read one beyond the page, as only that one tells
 * whether there is more.
 */
export function pageOf<Row>(
  rows: readonly Row[],
  limit: number,
  cursorOf: (last: Row) => string | number,
): { page: Row[]; next_cursor: string | null } {
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const isCut = rows.length > page.length && last !== undefined
  return { page, next_cursor: isCut ? String(cursorOf(last)) : null }
}
