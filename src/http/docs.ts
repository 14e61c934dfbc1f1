import type { Hono } from 'hono'
import { html, raw } from 'hono/html'
import { ENDPOINTS } from './contract/all.ts'
import type { Endpoint } from './contract/endpoint.ts'
import { getDocs, getOpenApi } from './contract/service.ts'
import { NOTICES } from './contract/webhooks.ts'
import { openApi } from './openapi.ts'
import { answer, Routes } from './routes.ts'
import type { Service } from './service.ts'

type Page = ReturnType<typeof html>

/** The contract for programs and for people. */
export function docsRoutes(app: Hono, service: Service): void {
  const document = openApi(service.version)
  const { components, paths } = document as unknown as Document
  const page = pageOf(service.version, paths, components.schemas)
  new Routes(app, service)
    .on(getOpenApi, () => answer(200, { ...document }))
    .on(getDocs, async ({ c }) => c.html(await page))
}

interface Document {
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, unknown> }
}

interface Operation {
  parameters?: { name: string; in: string; schema: unknown; description?: string }[]
  requestBody?: { content: { 'application/json': { schema: unknown } } }
  responses: Record<string, { description: string; content?: Record<string, { schema: unknown }> }>
}

/** One page without scripts: what there is, who may, what goes in and comes out. */
function pageOf(
  version: string,
  paths: Document['paths'],
  schemas: Document['components']['schemas'],
): Page {
  const tags = [...new Set(ENDPOINTS.map(({ tag }) => tag))]
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>Runlane: HTTP contract</title>
        <link rel="stylesheet" href="/console/console.css" />
      </head>
      <body>
        <main>
          <h1>Runlane ${version}</h1>
          <p>
            The same for programs: <a href="/openapi.json">openapi.json</a>. Times are RFC 3339 UTC,
            durations like <code>"30s"</code>. Errors are problem documents (RFC 9457) with a stable
            <code>code</code>. A method that a path does not have is answered with 405,
            <code>method_not_allowed</code> and an <code>Allow</code> header.
          </p>
          ${tags.map(
            (tag) =>
              html`<h2>${tag}</h2>
                ${ENDPOINTS.filter((one) => one.tag === tag).map((one) => sectionOf(one, paths))}`,
          )}
          <h2>Webhooks</h2>
          <p>
            To the <code>callback_url</code> of a run, and to <code>RUNLANE_WEBHOOK_URLS</code>: a
            <a href="#Notice">Notice</a> by POST, signed as Standard Webhooks say.
          </p>
          <dl>
            ${Object.entries(NOTICES).map(
              ([type, says]) =>
                html`<dt><code>${type}</code></dt>
                  <dd>${says}</dd>`,
            )}
          </dl>
          <h2>Objects</h2>
          ${Object.entries(schemas).map(
            ([name, schema]) =>
              html`<details id="${name}">
                <summary><code>${name}</code></summary>
                ${jsonOf(schema)}
              </details>`,
          )}
        </main>
      </body>
    </html>`
}

function sectionOf(
  { id, method, path, role, own, does }: Endpoint,
  paths: Document['paths'],
): Page {
  const operation = paths[path]?.[method.toLowerCase()]
  const { parameters = [], requestBody, responses = {} } = operation ?? {}
  const body = requestBody?.content['application/json'].schema
  const who =
    role === 'none'
      ? 'without authentication'
      : `from ${role}${own ? ' (a service: its own runs)' : ''}`
  return html`<details id="${id}">
    <summary><code>${method} ${path}</code> ${does}</summary>
    <p>${who}</p>
    ${
      parameters.length === 0
        ? ''
        : html`<dl>
            ${parameters.map(
              (one) =>
                html`<dt><code>${one.name}</code> (${one.in})</dt>
                  <dd>${one.description ?? ''} ${jsonOf(one.schema)}</dd>`,
            )}
          </dl>`
    }
    ${
      body === undefined
        ? ''
        : html`<p>Body</p>
            ${jsonOf(body)}`
    }
    ${Object.entries(responses).map(
      ([status, answered]) =>
        html`<p>${status}: ${answered.description}</p>
          ${Object.entries(answered.content ?? {})
            .filter(([media]) => media === 'application/json')
            .map(([, { schema }]) => jsonOf(schema))}`,
    )}
  </details>`
}

/** A schema to read, with links to the objects that it names. */
function jsonOf(schema: unknown): Page {
  const text = escaped(JSON.stringify(schema, null, 2))
  const linked = text.replaceAll(
    /&quot;#\/components\/schemas\/(\w+)&quot;/g,
    '<a href="#$1">$1</a>',
  )
  return html`<pre>${raw(linked)}</pre>`
}

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
