import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { openChat } from '../support/chat-page.ts'
import { chromiumFound, launchChromium } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { scripted, serve } from './setup.ts'

const { service, createRun, waitForRun, cancel, get } = await serve('postgres')

const JOURNAL = [
  ...['objective', 'current_state', 'blockers', 'next_action', 'findings', 'handoff_next_action'],
]
/** In every text that an agent or a caller can choose. */
const HOSTILE =
  '"><img src=x onerror="window.hacked=1">\'</section></p><script>window.hacked=2</script>' +
  '<a href="javascript:window.hacked=3" hx-get="/session" hx-trigger="load">&amp;\u202Elive\u202C 🤷🏽‍♀️ مرحبا %2F%00/?#'
const HANGING = [{ tool: 'wait', hang: true, effects: 'none' }]

describe.skipIf(!chromiumFound)(
  'hostile text in the status fragment, on a page without a content security policy',
  () => {
    let browser: Browser

    beforeAll(async () => {
      browser = await launchChromium()
    }, 60_000)
    afterAll(() => browser?.close())

    const chat = async (conversationId: string) => {
      const opened = await openChat(browser, service, {
        conversationId,
        contentSecurityPolicy: false,
      })
      onTestFinished(() => opened.page.close())
      return opened
    }
    const panel = (page: Page) => page.locator('.agent-status')
    const shows = (page: Page, status: string): Promise<unknown> =>
      page.waitForSelector(`.agent-status[data-status="${status}"]`)

    const harmless = async (page: Page): Promise<void> => {
      expect(await page.evaluate('window.hacked')).toBeUndefined()
      expect(await page.title()).toBe('Chat')
      expect(await page.locator('main :is(img, script, a)').count()).toBe(0)
      expect(await page.locator('main [hx-get]').count()).toBeLessThan(2)
      expect(await panel(page).count()).toBe(1)
    }

    test('of a run that goes on is text', async () => {
      const { run_id } = await createRun({
        ...scripted([{ say: HOSTILE }, ...HANGING]),
        agent: `scripted:${HOSTILE}`,
        conversation_id: HOSTILE,
      })
      const { page, errors } = await chat(HOSTILE)
      await shows(page, 'waiting_on_tool')

      expect(await panel(page).textContent()).toContain(HOSTILE.slice(0, 190))
      expect(await panel(page).getAttribute('aria-label')).toBe(`Status of scripted:${HOSTILE}`)
      await harmless(page)
      await page.getByRole('button', { name: 'Cancel', exact: true }).click()
      await shows(page, 'cancelled')
      await harmless(page)
      expect(errors).toEqual([])
      await cancel(run_id)
    })

    test('of the hand-over of a failed run is text', async () => {
      const conversationId = `failed ${HOSTILE}`
      const fields = JOURNAL.map((name) => [name, HOSTILE])
      const { run_id } = await createRun({
        ...scripted([{ journal: Object.fromEntries(fields) }, { fail: HOSTILE }]),
        conversation_id: conversationId,
      })
      await waitForRun(run_id)
      const { page, errors } = await chat(conversationId)
      await shows(page, 'failed')

      await page.getByText('Last known state').click()
      const text = (await panel(page).textContent()) ?? ''
      expect(text.split(HOSTILE)).toHaveLength(1 + 1 + JOURNAL.length)
      await harmless(page)
      expect(errors).toEqual([])
    })

    test('in the name of a conversation is text, which has no run, and then one', async () => {
      const conversationId = `none ${HOSTILE}`
      const { page, errors } = await chat(conversationId)
      await shows(page, 'none')
      expect(await page.getByRole('status').textContent()).toContain('No run yet')
      expect(await panel(page).getByRole('button').count()).toBe(0)
      await harmless(page)

      const draft = scripted(HANGING, { conversation_id: conversationId })
      const { run_id } = await createRun(draft)
      await shows(page, 'waiting_on_tool')
      await harmless(page)
      expect(errors).toEqual([])
      await cancel(run_id)
    })

    test('puts nothing into the page where there can be no conversation', async () => {
      const conversationId = HOSTILE.repeat(2)
      const { page } = await chat(conversationId)
      await eventually(() => page.evaluate('window.asked'), { message: 'the answer' })

      expect(await page.textContent('main')).toContain('asking')
      expect(await page.evaluate('window.hacked')).toBeUndefined()
      const { body } = await get(`/conversations/${encodeURIComponent(HOSTILE)}x/agent-status`)
      expect(body).toMatchObject({ code: 'not_found', detail: expect.stringContaining('<img') })
    })
  },
)
