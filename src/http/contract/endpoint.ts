import type { z } from 'zod'
import type { RefusalCode } from '../../errors.ts'

/** Smallest first: each role may do what those before it may. */
export const ROLES = ['viewer', 'service', 'operator', 'admin'] as const
export type Role = (typeof ROLES)[number]

/** An answer that is not JSON. */
export interface Media {
  readonly media: string
  readonly says: string
}

/**
 * One operation of the HTTP contract. What validates requests, types the handlers, makes the OpenAPI document, the table
 * of the README and the role checks is this one value.
 */
export interface Endpoint {
  /** The operation's id, a name for generated clients. */
  readonly id: string
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** With `{name}` for what varies. */
  readonly path: string
  readonly tag:
    | 'Runs'
    | 'Conversations'
    | 'Events'
    | 'Agents'
    | 'Charts'
    | 'Administration'
    | 'Service'
  /** The smallest role; `none`: without authentication. */
  readonly role: Role | 'none'
  /** A `service` may use it for the runs that it created, and for no other. */
  readonly own?: true
  /**
   * An action that leaves an audit row, under this name, whatever becomes of it. The route writes the row of who may not
   * and of what is not there; whoever carries the action out writes the others.
   */
  readonly audits?: string
  /** One line. */
  readonly does: string
  readonly query?: z.ZodObject
  /** Takes any query, and looks at none: probes are asked with whatever keeps caches out. */
  readonly anyQuery?: true
  readonly body?: z.ZodObject
  /** Takes an `Idempotency-Key`. */
  readonly keyed?: true
  /** A stream that goes on after a `Last-Event-ID`. */
  readonly resumes?: true
  /** By status. `null`: no content. */
  readonly answers: Readonly<Record<number, z.ZodType | Media | null>>
  /** What a successful answer may be instead, if the caller asks for it. */
  readonly also?: readonly Media[]
  /** Headers of successful answers, and what they say. */
  readonly headers?: Readonly<Record<string, string>>
  /** Codes of its problem documents, beside those that every operation of its kind may answer. */
  readonly refuses?: readonly RefusalCode[]
}

export const endpoint = <const E extends Endpoint>(given: E): E => given

/** What a query or body is after it was checked. */
export type Checked<S> = S extends z.ZodType ? z.output<S> : undefined

type NamesIn<P extends string> = P extends `${string}{${infer N}}${infer R}`
  ? N | NamesIn<R>
  : never
/** The variable parts of a path. */
export type Params<P extends string> = { readonly [N in NamesIn<P>]: string }

/** One of the answers that an endpoint promises. */
export type Answer<E extends Endpoint> =
  | {
      [S in keyof E['answers'] & number]: E['answers'][S] extends z.ZodType
        ? { status: S; body: z.input<E['answers'][S]>; headers?: Record<string, string> }
        : E['answers'][S] extends null
          ? { status: S; headers?: Record<string, string> }
          : Response
    }[keyof E['answers'] & number]
  | (E extends { also: readonly Media[] } ? Response : never)
