import type { Context } from 'hono'
import { Refusal } from '../../errors.ts'
import type { Caller } from '../../runtime/commands/commands.ts'
import type { Visibility } from '../../store/rows.ts'
import { VISIBILITIES } from '../../store/rows.ts'
import { type Role, ROLES } from '../contract/endpoint.ts'

/** Who is asking. */
export interface Identity {
  /** What `created_by` and audit rows call them: `token:<name>` or `user:<sub>`. */
  name: string
  role: Role
}

declare module 'hono' {
  interface ContextVariableMap {
    identity: Identity
    requestId: string
  }
}

export const reaches = (role: Role, wanted: Role): boolean =>
  ROLES.indexOf(role) >= ROLES.indexOf(wanted)

/** @throws Refusal forbidden */
export function demand({ role }: Identity, wanted: Role): void {
  if (!reaches(role, wanted))
    throw new Refusal('forbidden', `this needs the role ${wanted}, and yours is ${role}`)
}

/** A service may act on what it created; operators on everything. @throws Refusal forbidden */
export function demandOwn({ name, role }: Identity, run: { created_by: string }): void {
  if (role === 'service' && run.created_by !== name)
    throw new Refusal(
      'forbidden',
      'a service may do this to the runs that it created, and this is not one',
    )
}

/** The most that a role may read; of its own runs a service may read as much as an operator. */
const READS: Record<Role, Visibility> = {
  viewer: 'user',
  service: 'user',
  operator: 'operator',
  admin: 'internal',
}

/** What is asked for, lowered to what the role may read. */
export function lowered(asked: Visibility, { role }: Identity, own = false): Visibility {
  const most = own && role === 'service' ? 'operator' : READS[role]
  return VISIBILITIES.indexOf(asked) <= VISIBILITIES.indexOf(most) ? asked : most
}

export const callerOf = (c: Context): Caller => {
  const { name, role } = c.get('identity')
  return { name, role, requestId: c.get('requestId') }
}
