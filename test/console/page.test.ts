import { existsSync } from 'node:fs'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { type Service, startService } from '../support/service.ts'

const CHROMIUM = '/usr/bin/chromium'
const found = existsSync(CHROMIUM)
if (!found) process.stdout.write(`console tests are skipped: there is no ${CHROMIUM}\n`)

describe.skipIf(!found)('the console', () => {
  let service: Service
  let browser: Browser
  let page: Page

  beforeAll(async () => {
    service = await startService()
    browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', '--disable-background-networking'],
    })
    page = await browser.newPage()
  }, 60_000)

  afterAll(async () => {
    await browser?.close()
    await service?.stop()
  })

  test('asks for a token, and says when it is wrong', async () => {
    await page.goto(service.url)
    await page.fill('#token', 'wrong')
    await page.click('#login button')

    await page.waitForFunction(
      'document.querySelector("#login-problem").textContent.includes("not known")',
    )
  })

  test('shows a run live, with its state lit in the chart, and hostile text as text', async () => {
    await page.fill('#token', service.token)
    await page.click('#login button')
    await page.waitForSelector('#connection[data-state=live]')
    const hostile = '<img src=x onerror="document.title=1">'
    const run = await api(service).createRun({
      agent: 'scripted',
      input: { steps: [{ say: hostile }, { tool: 'wait', hang: true, effects: 'none' }] },
    })

    await page.click(`[data-run="${run.run_id}"]`)
    await page.waitForSelector('#chart [data-status=waiting_on_tool][data-lit]')
    expect(await page.textContent('#facts')).toContain(hostile)
    expect(await page.title()).toBe('Runlane')

    await page.click('#cancel')
    await page.waitForSelector('#chart [data-status=cancelled][data-lit]')
    expect(await page.locator('#chart [data-lit]').count()).toBe(1)
  })

  test('goes on by itself after the service was restarted', async () => {
    service = await service.restart()
    await page.waitForSelector('#connection[data-state=live]', { timeout: 60_000 })
    const run = await api(service).createRun({ agent: 'scripted', input: { steps: [] } })

    await page.waitForSelector(`[data-run="${run.run_id}"]`)
  }, 90_000)
})
