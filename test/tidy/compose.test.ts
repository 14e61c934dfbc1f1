import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse } from 'yaml'

interface Service {
  image?: string
  build?: { dockerfile_inline: string }
  deploy?: { replicas: number }
  environment?: Record<string, string>
  ports?: string[]
  healthcheck?: { test: string[] }
  depends_on?: Record<string, { condition: string }>
}

const read = (path: string): string =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const compose = parse(read('docker-compose.yml')) as {
  services: Record<'postgres' | 'runlane' | 'proxy', Service>
  configs: { nginx: { content: string } }
}
const { postgres, runlane, proxy } = compose.services
const nginx = compose.configs.nginx.content
const dockerfile = runlane.build?.dockerfile_inline ?? ''

test('two replicas share a Postgres that is ready before they start', () => {
  expect(runlane.deploy?.replicas).toBe(2)
  expect(runlane.depends_on?.['postgres']?.condition).toBe('service_healthy')
  expect(postgres.healthcheck?.test).toContain('pg_isready')
  const { username, hostname, pathname } = new URL(
    (runlane.environment?.['DATABASE_URL'] ?? '').replace(/\$\{.*?\}/, 'password'),
  )
  expect({ username, hostname, pathname }).toEqual({
    username: postgres.environment?.['POSTGRES_USER'],
    hostname: 'postgres',
    pathname: `/${postgres.environment?.['POSTGRES_DB']}`,
  })
})

test('one port is published, on loopback, and leads to the replicas', () => {
  const published = Object.values(compose.services).flatMap((service) => service.ports ?? [])
  expect(published).toEqual(['127.0.0.1:7420:7420'])
  expect(proxy.ports).toEqual(published)
  expect(nginx).toContain('listen 7420;')
  expect(nginx).toContain(`server runlane:${runlane.environment?.['PORT']} resolve;`)
  expect(nginx).toContain('proxy_buffering off;')
  expect(nginx).toContain('proxy_read_timeout 1h;')
  // A single `$` would be read as a variable of Compose.
  expect(nginx.replaceAll('$$', '')).not.toContain('$')
})

test('no secret has a default', () => {
  for (const name of ['RUNLANE_ADMIN_TOKEN', 'DATABASE_URL']) {
    expect(runlane.environment?.[name]).toMatch(/\$\{\w+:\?.+\}/)
  }
  expect(postgres.environment?.['POSTGRES_PASSWORD']).toMatch(/^\$\{\w+:\?.+\}$/)
})

test('images are pinned to a major version, Node to the one of package.json', () => {
  expect(postgres.image).toBe('postgres:18')
  expect(proxy.image).toMatch(/^nginx:\d+$/)
  const { engines } = JSON.parse(read('package.json')) as { engines: { node: string } }
  expect(dockerfile).toContain(`FROM node:${engines.node.replace('>=', '')}-slim`)
  expect(dockerfile).toMatch(/npm ci --omit=dev[^]*USER node[^]*CMD \["node", "src\/main.ts"\]/)
})
