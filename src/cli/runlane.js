#!/usr/bin/env node
/**
 * What npm links as `runlane`: brings whatever Node it is started with to run TypeScript, then hands over to `main.ts`.
 * Plain JavaScript that any Node since 20 reads.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import * as nodeModule from 'node:module'
import process from 'node:process'
import { fileURLToPath } from 'node:url'

const root = new URL('../../', import.meta.url)
const own = fileURLToPath(new URL('node_modules/node/bin/node', root))

/** Node runs TypeScript by itself, but refuses to for packages that are installed as a copy. */
const runsAsIs = process.features.typescript && !root.pathname.includes('/node_modules/')

if (runsAsIs || stripsHere()) await import('./main.ts')
else if (existsSync(own)) {
  const { status } = spawnSync(own, process.argv.slice(1), { stdio: 'inherit' })
  process.exitCode = status ?? 130
} else {
  process.stderr.write(`runlane needs Node 24 or later, and this is ${process.version}\n`)
  process.exitCode = 1
}

/** Has the types of this package, and of no other, taken out as its files are loaded. */
function stripsHere() {
  const { registerHooks, stripTypeScriptTypes } = nodeModule
  if (!registerHooks || !stripTypeScriptTypes) return false
  quietly('stripTypeScriptTypes')
  registerHooks({
    load: (url, context, next) => {
      const isOurs = url.startsWith(root.href) && /^[^?#]*\.ts$/.test(url.slice(root.href.length))
      if (!isOurs) return next(url, context)
      const source = stripTypeScriptTypes(readFileSync(fileURLToPath(url), 'utf8'))
      return { format: 'module', source, shortCircuit: true }
    },
  })
  return true
}

/** That this is experimental is no news to whoever types a command. */
function quietly(/** @type {string} */ feature) {
  const emit = process.emitWarning.bind(process)
  process.emitWarning = (/** @type {string | Error} */ warning, ...rest) => {
    if (!String(warning).startsWith(feature)) emit(warning, ...rest)
  }
}
