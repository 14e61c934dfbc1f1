import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { scripted, serve } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { chromiumFound, INSECURE_HOST, launchChromium } from '../support/chromium.ts'

const { service, createRun, post, get, request, waitForRun } = await serve('postgres')
const HANGING = scripted([{ tool: 'wait', hang: true, effects: 'none' }])

describe.skipIf(!chromiumFound)('the console', () => {
  let browser: Browser

  beforeAll(async () => {
    browser = await launchChromium()
  }, 60_000)

  afterAll(() => browser?.close())

  /** A browser of its own, without a session. */
  const visit = async (url = service.url): Promise<Page> => {
    const context = await browser.newContext()
    onTestFinished(() => context.close())
    const page = await context.newPage()
    await page.goto(url)
    await page.waitForSelector('#login:not([hidden])')
    return page
  }
  const logIn = async (page: Page, token: string): Promise<void> => {
    await page.fill('#token', token)
    await page.click('#login button')
  }
  const opened = async (token: string): Promise<Page> => {
    const page = await visit()
    await logIn(page, token)
    await page.waitForSelector('#content:not([hidden])')
    return page
  }
  const tokenOf = async (role: string): Promise<{ id: string; token: string }> => {
    const name = `${role}-${Math.random().toString(36).slice(2)}`
    return (await post('/api/v1/admin/tokens', { name, role })).body
  }
  const show = async (page: Page, run_id: string): Promise<void> => {
    await page.click(`[data-run="${run_id}"]`)
    await page.waitForSelector(`#detail-title:text-is("${run_id}")`)
  }

  test('asks for a token, says when it is wrong, and forgets it at once', async () => {
    const page = await visit()
    await logIn(page, 'wrong')

    await page.waitForSelector('#login-problem:text("This token is not known here.")')
    expect(await page.inputValue('#token')).toBe('')
    expect(await page.isVisible('#content')).toBe(false)
  })

  test('holds a session: the token is nowhere in the page, and scripts cannot read the cookie', async () => {
    const page = await visit()
    const headers: Record<string, string>[] = []
    page.on('request', (sent) => headers.push(sent.headers()))
    await logIn(page, service.token)
    await page.waitForSelector('#connection[data-state=live]')

    expect(await page.textContent('#who')).toBe('token:admin, admin')
    const kept = 'JSON.stringify([localStorage, sessionStorage, document.cookie, history.state])'
    expect(await page.evaluate(kept)).toBe('[{},{},"",null]')
    expect(await page.evaluate('document.querySelector("#token").value')).toBe('')
    expect(await page.content()).not.toContain(service.token)
    expect(headers.length).toBeGreaterThan(3)
    expect(headers.filter((sent) => 'authorization' in sent)).toEqual([])
    const [cookie] = await page.context().cookies()
    expect(cookie).toMatchObject({
      name: '__Host-runlane',
      httpOnly: true,
      secure: true,
      sameSite: 'Strict',
      path: '/',
    })
    expect(cookie?.value).not.toContain(service.token)

    await page.reload()
    await page.waitForSelector('#connection[data-state=live]')
    expect(await page.isVisible('#login')).toBe(false)
  })

  test('shows a run live, with its state lit in the chart, and hostile text as text', async () => {
    const page = await opened(service.token)
    await page.waitForSelector('#connection[data-state=live]')
    const hostile = '<img src=x onerror="document.title=1">'
    const run = await createRun({
      agent: `scripted:${hostile}`,
      input: { steps: [{ say: hostile }, { tool: 'wait', hang: true, effects: 'none' }] },
    })

    await show(page, run.run_id)
    await page.waitForSelector('#chart [data-status=waiting_on_tool][data-lit]')
    expect(await page.textContent('#facts')).toContain(hostile)
    expect(await page.locator('img').count()).toBe(0)
    expect(await page.title()).toBe('Runlane')

    await page.click('#cancel')
    await page.waitForSelector('#chart [data-status=cancelled][data-lit]')
    expect(await page.locator('#chart [data-lit]').count()).toBe(1)
  })

  test('offers a viewer nothing to press, and shows what goes on all the same', async () => {
    const { token } = await tokenOf('viewer')
    const { run_id } = await createRun(HANGING)
    const page = await opened(token)
    await page.waitForSelector('#connection[data-state=polling]')
    await show(page, run_id)

    const buttons = page.locator('button:visible:not([data-run])')
    expect(await buttons.allTextContents()).toEqual(['Log out'])
    await api(service).cancel(run_id)
    await page.waitForSelector('#facts dd:text-is("cancelled")')
  })

  test('offers a service the buttons of its own runs only', async () => {
    const { token } = await tokenOf('service')
    const mine = await api({ url: service.url, token }).createRun(HANGING)
    const other = await createRun(HANGING)
    const page = await opened(token)

    await show(page, other.run_id)
    expect(await page.isVisible('#cancel')).toBe(false)
    expect(await page.isVisible('#resume')).toBe(false)
    await show(page, mine.run_id)
    expect(await page.isVisible('#resume')).toBe(true)
    await page.click('#cancel')
    expect((await waitForRun(mine.run_id)).status).toBe('cancelled')
    await api(service).cancel(other.run_id)
  })

  test('logging out ends the session here and on the service', async () => {
    const page = await opened(service.token)
    const [cookie] = await page.context().cookies()
    const headers = {
      cookie: `__Host-runlane=${cookie?.value ?? ''}`,
      'sec-fetch-site': 'same-origin',
    }
    const anonymous = api({ url: service.url })
    expect((await anonymous.get('/session', headers)).status).toBe(200)

    await page.click('#log-out')
    await page.waitForSelector('#login:not([hidden])')
    expect(await page.context().cookies()).toEqual([])
    expect((await anonymous.get('/session', headers)).status).toBe(401)
    await page.reload()
    await page.waitForSelector('#login:not([hidden])')
    expect(await page.isVisible('#content')).toBe(false)
  })

  test('a page whose token is revoked goes back to the login by itself, and shows nothing more', async () => {
    const { id, token } = await tokenOf('operator')
    const { run_id } = await createRun(scripted([]))
    const page = await opened(token)
    await page.waitForSelector('#connection[data-state=live]')
    await show(page, run_id)

    expect((await request('DELETE', `/api/v1/admin/tokens/${id}`)).status).toBe(204)
    await page.waitForSelector('#login-problem:text("Your session has ended.")')
    expect(await page.isVisible('#content')).toBe(false)
    expect(await page.content()).not.toContain(run_id)
  })

  test('says in words when the browser did not keep the cookie', async () => {
    const page = await visit(service.url.replace('127.0.0.1', INSECURE_HOST))
    await logIn(page, service.token)

    await page.waitForSelector('#login-problem:text("did not keep the cookie")')
    expect(await page.textContent('#login-problem')).toContain('https://')
    expect(await page.isVisible('#content')).toBe(false)
    expect(await page.content()).not.toContain(service.token)
  })

  test('goes on by itself, with its session, after the service was restarted', async () => {
    const page = await opened(service.token)
    await page.waitForSelector('#connection[data-state=live]')
    const restarted = await service.restart()
    onTestFinished(async () => void (await restarted.kill()))
    await page.waitForSelector('#connection[data-state=live]', { timeout: 60_000 })
    const run = await api(restarted).createRun({ agent: 'scripted', input: { steps: [] } })

    await page.waitForSelector(`[data-run="${run.run_id}"]`)
    expect((await get('/session')).status).toBe(200)
    expect(await page.isVisible('#login')).toBe(false)
  }, 90_000)
})
