import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Hono } from 'hono'

const STATIC = fileURLToPath(new URL('./static/', import.meta.url))
/** The browser gets @xstate/store as it is published: plain modules that import only one another. */
const STORE = dirname(fileURLToPath(import.meta.resolve('@xstate/store')))

/** The static files of the console: they hold nothing, the page asks for a session before it reads anything. */
export function consoleRoutes(): Hono {
  const app = new Hono()
  const send = (path: string, file: string, type: string): void => {
    app.get(path, async (c) =>
      c.body(await readFile(file, 'utf8'), 200, {
        'content-type': `${type}; charset=utf-8`,
        'cache-control': 'no-cache',
      }),
    )
  }
  send('/', join(STATIC, 'page.html'), 'text/html')
  for (const script of ['console.js', 'requests.js', 'session.js'])
    send(`/console/${script}`, join(STATIC, script), 'text/javascript')
  send('/console/console.css', join(STATIC, 'console.css'), 'text/css')
  app.get('/console/store/:file{[A-Za-z0-9-]+\\.js}', async (c) => {
    const text = await readFile(join(STORE, c.req.param('file')), 'utf8').catch(() => null)
    if (text === null) return c.notFound()
    return c.body(text, 200, {
      'content-type': 'text/javascript; charset=utf-8',
      'cache-control': 'no-cache',
    })
  })
  return app
}
