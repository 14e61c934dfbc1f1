import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import type { ApiBase } from './api.ts'
import { logInPage } from './chromium.ts'

const DIST = new URL('.', import.meta.resolve('htmx.org'))
const read = (file: string): Promise<string> => readFile(fileURLToPath(new URL(file, DIST)), 'utf8')

/** htmx 4 as it is, and with its own extension that makes it inherit attributes and ignore errors as htmx 2 does. */
export const HTMX = {
  'htmx 4': ['htmx.js'],
  'htmx 4 in the manner of htmx 2': ['htmx.js', 'ext/htmx-2-compat.js'],
} as const

export interface ChatOptions {
  readonly conversationId: string
  readonly htmx?: keyof typeof HTMX
  /** Whose session the page has; default: the base's token. */
  readonly token?: string
  /** Without one, nothing but the fragment itself keeps hostile text from becoming script. */
  readonly contentSecurityPolicy?: boolean
  /** The page's time goes by itself, and further when the test says so (`page.clock.fastForward`). */
  readonly ownClock?: boolean
}

/**
 * A chat surface that another team made: a page of the service's origin (behind one proxy, say) that asks htmx for the
 * status panel and leaves the rest to it. `violations` are what its content security policy has refused, and `errors` what
 * went wrong on it.
 */
export const openChat = async (
  browser: Browser,
  base: ApiBase,
  options: ChatOptions,
): Promise<{ page: Page; violations: string[]; errors: string[] }> => {
  const page = await browser.newPage({ viewport: { width: 480, height: 800 } })
  if (options.ownClock) await page.clock.install()
  const errors: string[] = []
  const violations: string[] = []
  page.on('pageerror', (error) => errors.push(error.message))
  page.on('console', (message) => {
    if (message.text().includes('Content Security Policy')) violations.push(message.text())
  })
  // Counts what htmx has dealt with, whatever it did about it.
  await page.addInitScript(
    `addEventListener('htmx:finally:request', () => { window.asked = (window.asked ?? 0) + 1 }, true)`,
  )
  await logInPage(page, { url: base.url, token: options.token ?? base.token ?? '' })

  const scripts = HTMX[options.htmx ?? 'htmx 4']
  for (const file of scripts) {
    const body = await read(file)
    await page.route(`${base.url}/chat/${file}`, (route) =>
      route.fulfill({ contentType: 'text/javascript', body }),
    )
  }
  const policy = (await fetch(base.url)).headers.get('content-security-policy') ?? ''
  await page.route(`${base.url}/chat`, (route) =>
    route.fulfill({
      contentType: 'text/html; charset=utf-8',
      headers: options.contentSecurityPolicy === false ? {} : { 'content-security-policy': policy },
      body: pageOf(options.conversationId, scripts),
    }),
  )
  await page.goto(`${base.url}/chat`)
  return { page, violations, errors }
}

/** The surroundings have a target of their own, which the panel must not take for its own. */
const pageOf = (conversationId: string, scripts: readonly string[]): string => {
  const path = `/conversations/${encodeURIComponent(conversationId)}/agent-status`
  return `<!doctype html><html lang="en"><head><title>Chat</title>
    ${scripts.map((file) => `<script src="/chat/${file}"></script>`).join('')}</head>
    <body hx-target="#elsewhere"><main>
      <div hx-get="${path.replaceAll("'", '&#39;')}" hx-trigger="load" hx-target="this" hx-swap="outerHTML">asking</div>
    </main><p id="elsewhere">untouched</p></body></html>`
}
