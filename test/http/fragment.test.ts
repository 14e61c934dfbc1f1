import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { type ChatOptions, HTMX, openChat } from '../support/chat-page.ts'
import { chromiumFound, launchChromium } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const env = { RUNLANE_LEASE: '1s', RUNLANE_RECOVERY: 'manual' }
let service = await startService({ databaseUrl, env })
afterAll(() => service.kill())

const JOURNAL = {
  objective: 'Book a table',
  current_state: 'Called two places',
  blockers: ['no phone', 'closed on Mondays'],
  next_action: 'Call the third',
  findings: { best: 'Chez Ana' },
  handoff_next_action: 'Ask Ana herself',
}
const HANGING = [{ tool: 'wait', hang: true, effects: 'none' }]

describe.skipIf(!chromiumFound)('the status fragment in Chromium', () => {
  let browser: Browser

  beforeAll(async () => {
    browser = await launchChromium()
  }, 60_000)
  afterAll(() => browser?.close())

  const chat = async (options: ChatOptions) => {
    const opened = await openChat(browser, service, options)
    onTestFinished(() => opened.page.close())
    return opened
  }
  const panel = (page: Page) => page.locator('.agent-status')
  const button = (page: Page, name: string) => page.getByRole('button', { name, exact: true })
  const shows = (page: Page, status: string): Promise<unknown> =>
    page.waitForSelector(`.agent-status[data-status="${status}"]`)

  describe.each(Object.keys(HTMX) as (keyof typeof HTMX)[])('polled by %s', (htmx) => {
    test('follows the run by itself, keeps the focus, and its Cancel button cancels', async () => {
      const conversationId = `follows with ${htmx}`
      const { createRun, waitForRun, cancel } = api(service)
      const lane_key = conversationId
      const ahead = await createRun(scripted(HANGING, { lane_key }))
      const { run_id } = await createRun(
        scripted(HANGING, { lane_key, conversation_id: conversationId }),
      )
      const { page, violations, errors } = await chat({ conversationId, htmx })
      const polls: number[] = []
      page.on('request', (sent) => {
        if (sent.url().endsWith('/agent-status')) polls.push(performance.now())
      })
      await shows(page, 'waiting_on_lane')
      const named = page.getByRole('region', { name: 'Status of scripted' })
      expect(await named.getByRole('status').textContent()).toContain('waiting on lane')

      await button(page, 'Cancel').focus()
      await eventually(() => polls.length > 2)
      const between = polls.slice(1).map((at, n) => at - (polls[n] ?? 0))
      // Later where the machine is busy, never sooner.
      expect(Math.min(...between)).toBeGreaterThan(1_400)
      await cancel(ahead.run_id)
      await shows(page, 'waiting_on_tool')
      await page.waitForSelector(`#cancel-${run_id}:focus`)
      await page.keyboard.press('Enter')
      await shows(page, 'cancelled')
      expect((await waitForRun(run_id)).status).toBe('cancelled')
      expect(await page.getByRole('status').textContent()).toContain('Run cancelled')
      expect(await panel(page).getByRole('button').count()).toBe(0)
      expect(await panel(page).count()).toBe(1)
      expect(await page.textContent('#elsewhere')).toBe('untouched')
      expect({ violations, errors }).toEqual({ violations: [], errors: [] })
    })

    test(
      'outlives a crash of the service, hands over with the digest of the journal, and resumes',
      { timeout: 60_000 },
      async () => {
        const conversationId = `resumes with ${htmx}`
        // Long enough for the page to be there before its end, and for the crash.
        const steps = [{ journal: JOURNAL }, { think: 5_000 }, { return: 'done' }]
        const { run_id } = await api(service).createRun(
          scripted(steps, { conversation_id: conversationId }),
        )
        const { page, violations } = await chat({ conversationId, htmx })
        await shows(page, 'running')
        await service.kill()
        service = await service.restart()

        await shows(page, 'timed_out')
        expect(await page.getByRole('status').textContent()).toContain('Run timed out')
        expect(await panel(page).textContent()).toContain('Next: Ask Ana herself')
        await page.getByText('Last known state').click()
        const terms = await panel(page).locator('dt').allTextContents()
        const known = await panel(page).locator('dd').allInnerTexts()
        expect(Object.fromEntries(terms.map((term, n) => [term, known[n]]))).toEqual({
          objective: 'Book a table',
          'current state': 'Called two places',
          blockers: 'no phone\nclosed on Mondays',
          'next action': 'Call the third',
          findings: '{"best":"Chez Ana"}',
        })

        await button(page, 'Resume from last checkpoint').click()
        await shows(page, 'completed')
        expect(await api(service).run(run_id)).toMatchObject({ status: 'completed', attempt: 2 })
        expect(await panel(page).getByRole('button').count()).toBe(0)
        expect(violations).toEqual([])
      },
    )
  })

  test.each(Object.keys(HTMX) as (keyof typeof HTMX)[])(
    'after the end asks slowly for the next run, and leaves open what somebody reads, with %s',
    async (htmx) => {
      const conversationId = `slow with ${htmx}`
      const { createRun, waitForRun, cancel } = api(service)
      const first = await createRun(
        scripted([{ journal: JOURNAL }, { fail: 'no' }], { conversation_id: conversationId }),
      )
      await waitForRun(first.run_id)
      const { page, errors } = await chat({ conversationId, htmx, ownClock: true })
      await shows(page, 'failed')
      await page.getByText('Last known state').click()
      await panel(page).evaluate('(shown) => { shown.dataset.before = "yes" }')
      const polls: string[] = []
      page.on('request', (sent) => polls.push(sent.url()))

      // A timer that is due several times fires once: one poll in the first seconds would be one too many.
      await page.clock.fastForward(8_000)
      await page.clock.fastForward(2_500)
      await page.waitForSelector('.agent-status:not([data-before])')
      expect(polls).toHaveLength(1)
      expect(await panel(page).locator('details[open]').count()).toBe(1)

      const next = await createRun(scripted(HANGING, { conversation_id: conversationId }))
      await page.clock.fastForward(10_500)
      await shows(page, 'waiting_on_tool')
      expect(errors).toEqual([])
      await cancel(next.run_id)
    },
  )

  test('a button that comes too late says why, and shows what is', async () => {
    const conversationId = 'too late'
    const { createRun, cancel, waitForRun } = api(service)
    const { run_id } = await createRun(scripted(HANGING, { conversation_id: conversationId }))
    const { page } = await chat({ conversationId })
    await shows(page, 'waiting_on_tool')
    await page.route('**/agent-status', (route) => route.abort())
    await cancel(run_id)
    await waitForRun(run_id)

    await button(page, 'Cancel').click()
    await shows(page, 'cancelled')
    expect(await page.getByRole('alert').textContent()).toContain('the run is cancelled')
  })

  test('an error takes the place of nothing: the panel stays, and goes on when it can', async () => {
    const conversationId = 'errors'
    const { createRun, cancel } = api(service)
    const { run_id } = await createRun(scripted(HANGING, { conversation_id: conversationId }))
    const { page } = await chat({ conversationId })
    await shows(page, 'waiting_on_tool')
    const kept = await page.context().cookies()
    await page.context().clearCookies()
    const refused = () => page.waitForResponse((polled) => polled.status() === 401)
    await refused()
    // The next poll starts only after the last answer was dealt with.
    await refused()
    expect(await button(page, 'Cancel').count()).toBe(1)

    await page.context().addCookies(kept)
    await cancel(run_id)
    await shows(page, 'cancelled')
  })

  test.each([
    ['a viewer', 'viewer'],
    ['a service that did not create the run', 'service'],
  ])('offers %s no button', async (_who, role) => {
    const conversationId = `no button for a ${role}`
    const { createRun, cancel, post } = api(service)
    const { token } = (await post('/api/v1/admin/tokens', { name: `chat-${role}`, role })).body
    const { run_id } = await createRun(scripted(HANGING, { conversation_id: conversationId }))
    const { page } = await chat({ conversationId, token })
    await shows(page, 'waiting_on_tool')

    expect(await panel(page).getByRole('button').count()).toBe(0)
    await cancel(run_id)
    await shows(page, 'cancelled')
  })

  test('texts of 10,000 characters without a space stay whole and inside the page', async () => {
    const conversationId = 'long'
    const long = 'x'.repeat(10_000)
    const { run_id } = await api(service).createRun(
      scripted([{ journal: { objective: long } }, { say: long }, { fail: long }], {
        conversation_id: conversationId,
      }),
    )
    const { error_message } = await api(service).waitForRun(run_id)
    const { page } = await chat({ conversationId })
    await shows(page, 'failed')
    await page.getByText('Last known state').click()

    expect(await panel(page).locator('dd').textContent()).toContain(long)
    expect(await panel(page).locator('.agent-error').textContent()).toBe(error_message)
    const { innerWidth, scrollWidth } = await page.evaluate<Record<string, number>>(
      '({ innerWidth, scrollWidth: document.documentElement.scrollWidth })',
    )
    expect(scrollWidth).toBeLessThanOrEqual(innerWidth ?? 0)
    await button(page, 'Resume from last checkpoint').click()
    await api(service).waitForRun(run_id, {
      until: ({ attempt, status }) => attempt === 2 && status === 'failed',
    })
  })
})
