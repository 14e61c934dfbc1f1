import type { Hono } from 'hono'

const METHODS = ['GET', 'POST', 'PUT', 'DELETE'] as const

/** The methods that are answered at this path, as the router itself finds them; a HEAD is answered wherever a GET is. */
export function methodsAt({ router }: Hono, path: string): string[] {
  const known = METHODS.filter((method) =>
    // What is there for any method are checks before the routes.
    router.match(method, path)[0].some(([[, route]]) => route.method === method),
  )
  return known.flatMap((method) => (method === 'GET' ? [method, 'HEAD'] : [method]))
}
