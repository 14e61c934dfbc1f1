import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  root: fileURLToPath(new URL('..', import.meta.url)),
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // Each file may drive servers and processes of its own; more at a time only makes clocks unfair.
    maxWorkers: 2,
    // XState warns about misused machines in its development build only.
    execArgv: ['--conditions=development'],
  },
})
