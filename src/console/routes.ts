import { readFile } from 'node:fs/promises'
import { Hono } from 'hono'

const FILES: Record<string, { file: string; type: string }> = {
  '/': { file: 'page.html', type: 'text/html; charset=utf-8' },
  '/console.js': { file: 'console.js', type: 'text/javascript; charset=utf-8' },
  '/console.css': { file: 'console.css', type: 'text/css; charset=utf-8' },
}

/** The static files of the console: they hold nothing, the page asks for a token before it reads anything. */
export function consoleRoutes(): Hono {
  const app = new Hono()
  for (const [path, { file, type }] of Object.entries(FILES)) {
    app.get(path, async (c) => {
      const text = await readFile(new URL(`./static/${file}`, import.meta.url), 'utf8')
      return c.body(text, 200, { 'content-type': type, 'cache-control': 'no-cache' })
    })
  }
  return app
}
