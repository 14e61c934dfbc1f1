import { expect, test } from 'vitest'
import { createApp } from '../../src/http/app.ts'
import { ROUTES } from '../../src/http/route-table.ts'
import type { Service } from '../../src/http/service.ts'

test('the table of routes, which the README shows, names each route of the app and no other', () => {
  const app = createApp({ authenticate: async () => undefined } as unknown as Service)

  const served = app.routes
    .filter(({ method, path }) => method !== 'ALL' && !path.startsWith('/console/'))
    .map(({ method, path }) => `${method} ${path}`)

  expect([...new Set(served)].toSorted()).toEqual(
    ROUTES.map(({ method, path }) => `${method} ${path}`).toSorted(),
  )
})
