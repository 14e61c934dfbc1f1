import { existsSync } from 'node:fs'
import { type Browser, chromium, type Page } from 'playwright-core'
import type { ApiBase } from './api.ts'

const CHROMIUM = '/usr/bin/chromium'

/** Without it, tests in a browser are skipped, and say so. */
export const chromiumFound = existsSync(CHROMIUM)
if (!chromiumFound) process.stdout.write(`browser tests are skipped: there is no ${CHROMIUM}\n`)

/** A host name that browsers take to this machine, but that is no secure origin to them as 127.0.0.1 is. */
export const INSECURE_HOST = 'runlane.test'

/** A Chromium that reaches this machine only. Whoever launches it closes it. */
export const launchChromium = (): Promise<Browser> =>
  chromium.launch({
    executablePath: CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-background-networking',
      `--host-resolver-rules=MAP ${INSECURE_HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1`,
    ],
  })

/** Gives the context of a page a session, as the console's form does. */
export const logInPage = async (page: Page, { url, token }: ApiBase): Promise<void> => {
  await page.goto(`${url}/docs`)
  // The page's own fetch: it is the browser that says where a request comes from, and keeps the cookie.
  const status = await page.evaluate(
    `fetch('/session', { method: 'POST', body: ${JSON.stringify(JSON.stringify({ token }))} }).then(({ status }) => status)`,
  )
  if (status !== 201) throw new Error(`POST /session answered ${String(status)}`)
}
