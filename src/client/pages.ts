/**
 * A list of the service, read page by page as it is iterated: `for await (const run of client.listRuns())`.
 *
 * Nothing is asked for before the first item is. Pages are cut by key, not by number, so rows that come or go while it is
 * read are never a reason to see another one twice or not at all. Each iteration begins anew.
 *
 * @throws {RunlaneError} while it is iterated, as any request may. What was yielded before stays good.
 */
export interface Listing<T, P> extends AsyncIterable<T> {
  /** The same, page by page as the service answers it; of runs each has `cursor`, where a stream of events goes on. */
  pages(): AsyncIterable<P>
}

/** A page of any list. */
export interface Page {
  readonly next_cursor: string | null
}

export function listing<T, P extends Page>(
  read: (cursor: string | undefined) => Promise<P>,
  itemsOf: (page: P) => readonly T[],
): Listing<T, P> {
  async function* pages(): AsyncGenerator<P> {
    let cursor: string | undefined
    do {
      const page = await read(cursor)
      yield page
      cursor = page.next_cursor ?? undefined
    } while (cursor !== undefined)
  }
  return {
    pages,
    async *[Symbol.asyncIterator]() {
      for await (const page of pages()) yield* itemsOf(page)
    },
  }
}
