import type { Hono } from 'hono'
import { Refusal } from '../errors.ts'
import { demandOwnPage } from './access/sessions.ts'
import { logIn, logOut, whoAmI } from './contract/service.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

/** Sessions of browsers. */
export function sessionRoutes(app: Hono, service: Service): void {
  const { access } = service
  new Routes(app, service)
    .on(logIn, async ({ c, body: { token } }) => {
      // A page of another site must not log its visitor in under a name of its choice.
      if (c.req.header('sec-fetch-site') !== undefined) demandOwnPage(c)
      const verified = await access.admitToken(c, token)
      if (verified.until !== null && verified.until <= Date.now())
        throw new Refusal('unauthorized', 'this token has expired')
      await access.sessions.open(c, verified, token)
      return answer(201, { name: verified.name, role: verified.role })
    })
    .on(whoAmI, ({ identity: { name, role } }) => answer(200, { name, role }))
    .on(logOut, async ({ c }) => {
      await access.sessions.close(c)
      return { status: 204 as const }
    })
}
