/** Who is asking, the browser says by the session's cookie; nothing on this page can read it. */
export async function json(path, options = {}) {
  const response = await fetch(path, {
    ...options,
    headers: { 'content-type': 'application/json' },
  })
  const body = response.status === 204 ? null : await response.json().catch(() => null)
  if (response.ok) return body
  const problem = body?.detail ?? response.statusText
  throw Object.assign(new Error(problem), { status: response.status })
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
