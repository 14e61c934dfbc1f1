/** A typed client of the HTTP contract for backends: `import { createClient } from 'runlane/client'`. */
export type { Client } from './client.ts'
export type {
  AuditFilter,
  CallOptions,
  ClientOptions,
  CommandOptions,
  KeyedOptions,
  ListOptions,
  PlainCommandOptions,
  RunEventsFilter,
  RunFilter,
  WaitOptions,
} from './options.ts'
export { createClient } from './create.ts'
export { type ClientCode, RunlaneError } from './errors.ts'
export type { EventsOptions, EventsScope, EventStream } from './events.ts'
export type { Listing, Page } from './pages.ts'
export { createMessageAssembler, type MessageAssembler, type MessageText } from './text.ts'
export type * from './types.ts'
export { verifyWebhook, type WebhookEvent, type WebhookHeaders } from './webhook.ts'
