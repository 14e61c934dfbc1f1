import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { cli } from './setup.ts'

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }

test.each(['--version', '-V'])(
  'runlane %s prints the version, without a service',
  async (option) => {
    expect(await cli([option])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' })
  },
)
