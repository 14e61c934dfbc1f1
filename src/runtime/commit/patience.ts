/** How long a caller waits for its write while the database is away, in milliseconds. */
export const CALLER_PATIENCE_MS = 3_000
/** A failure that is over sooner is a hiccup that callers only feel as a delay; a longer one is an outage. */
export const OUTAGE_AFTER_MS = 1_000
/** A commit that takes longer counts as lost; its outcome is found out on a new connection. */
export const COMMIT_TIMEOUT_MS = 35_000
