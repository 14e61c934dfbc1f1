/** Live events. */
import { z } from 'zod'
import { endpoint } from './endpoint.ts'
import { id, visibility } from './values.ts'

const STREAM = { media: 'text/event-stream', says: 'Server-Sent Events, each with its id' } as const

const query = z.strictObject({
  after_event_id: z.string().optional(),
  after_sequence: z
    .string()
    .optional()
    .meta({ description: 'of one run; ignored elsewhere', pattern: '^\\d{1,9}$' }),
  run_id: id.optional().meta({
    description: 'this run alone: one of the conversation, or the run, that the path names',
  }),
  visibility,
})

export const streamRunEvents = endpoint({
  id: 'streamRunEvents',
  method: 'GET',
  path: '/runs/{run_id}/agent-events',
  tag: 'Events',
  role: 'viewer',
  does: 'its events live (SSE); ends with the run',
  query,
  resumes: true,
  answers: { 200: STREAM },
  refuses: ['bad_request', 'too_many_connections'],
})

export const streamConversationEvents = endpoint({
  id: 'streamConversationEvents',
  method: 'GET',
  path: '/conversations/{id}/agent-events',
  tag: 'Events',
  role: 'viewer',
  does: 'the events of a conversation live (SSE)',
  query,
  resumes: true,
  answers: { 200: STREAM },
  refuses: ['bad_request', 'too_many_connections'],
})

export const streamEvents = endpoint({
  id: 'streamEvents',
  method: 'GET',
  path: '/agent-events',
  tag: 'Events',
  role: 'operator',
  does: 'all events live (SSE)',
  query,
  resumes: true,
  answers: { 200: STREAM },
  refuses: ['bad_request', 'not_found', 'too_many_connections'],
})
