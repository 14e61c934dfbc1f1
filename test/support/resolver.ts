import { mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll } from 'vitest'

/**
 * Says what names that end in `.test` resolve to in services that are started with `nodeArgs`, in all of their threads and
 * from that moment on. Call it while tests are collected; removed after the tests of the file.
 */
export const fakeResolver = (): {
  readonly nodeArgs: readonly string[]
  setNames(addresses: Readonly<Record<string, readonly string[]>>): void
} => {
  const folder = mkdtempSync(join(tmpdir(), 'runlane-names-'))
  afterAll(() => rm(folder, { recursive: true, force: true }))
  const names = join(folder, 'names.json')
  writeFileSync(names, '{}')
  const preload = join(folder, 'resolver.mjs')
  writeFileSync(preload, preloadOf(names))
  return {
    nodeArgs: ['--import', pathToFileURL(preload).href],
    setNames: (addresses) => writeFileSync(names, JSON.stringify(addresses)),
  }
}

const preloadOf = (names: string): string => `import dns from 'node:dns'
import { readFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
const { lookup } = dns
dns.lookup = (name, options, callback) => {
  if (!String(name).endsWith('.test')) return lookup(name, options, callback)
  const found = JSON.parse(readFileSync(${JSON.stringify(names)}, 'utf8'))[name]
  const addresses = (found ?? []).map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
  const error = found ? null : Object.assign(new Error('getaddrinfo ENOTFOUND ' + name), { code: 'ENOTFOUND' })
  if (options?.all) callback(error, addresses)
  else callback(error, addresses[0]?.address, addresses[0]?.family)
}
syncBuiltinESMExports()
`
