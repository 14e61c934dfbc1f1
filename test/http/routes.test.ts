import { expect, test } from 'vitest'
import { createApp } from '../../src/http/app.ts'
import { ENDPOINTS } from '../../src/http/contract/all.ts'
import type { Service } from '../../src/http/service.ts'

test('the app serves every operation of the contract and nothing beside it', () => {
  const app = createApp({ version: '0.0.0', node: {} } as unknown as Service)

  const served = app.routes
    .filter(({ method, path }) => method !== 'ALL' && !path.startsWith('/console/'))
    .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`)

  const promised = ENDPOINTS.map(({ method, path }) => `${method} ${path}`)
  expect([...new Set(served)].toSorted()).toEqual(promised.toSorted())
})

test('operations have names of their own', () => {
  const ids = ENDPOINTS.map(({ id }) => id)
  expect(ids).toEqual([...new Set(ids)])
})
