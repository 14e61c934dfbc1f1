import { monotonicFactory } from 'ulid'

const ulid = monotonicFactory()

/** Ids are ULIDs with a prefix that names the thing: they sort by time of creation, which the run list relies on. */
export const newRunId = (): string => `run_${ulid()}`
export const newConversationId = (): string => `conv_${ulid()}`
export const newCommandId = (): string => `cmd_${ulid()}`

let records = 0
const instance = ulid()

/** Unique without the cost of a ULID: records are counted within a process. */
export const newRecordId = (): string => {
  records += 1
  return `${instance}.${records}`
}
