import { type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { type ServerType, serve } from '@hono/node-server'
import { Refusal } from '../errors.ts'
import { problemDocument, STATUS } from './problem.ts'

/** Listens; rejects with the error of the socket where the address cannot be had. */
export function listen(
  fetch: Parameters<typeof serve>[0]['fetch'],
  { host, port }: { host: string; port: number },
): Promise<ServerType> {
  return new Promise((resolve, reject) => {
    const server = serve({ fetch, hostname: host, port }, () => resolve(server))
    server.once('error', reject)
    refuseUnreadable(server as Server)
  })
}

/**
 * What Node cannot read as a request never reaches a route; its own answer has no content. Such a connection is closed: where the next
 * request would begin is unknown. With an answer under way it only ends, as nothing may be written into the middle of that.
 */
function refuseUnreadable(server: Server): void {
  const answering = new WeakSet<Duplex>()
  server.on('request', ({ socket }, response: ServerResponse) => {
    answering.add(socket)
    response.once('close', () => answering.delete(socket))
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable || answering.has(socket)) socket.destroy()
    else socket.end(refusalText(error.code), () => socket.destroy())
  })
}

function refusalText(code: string | undefined): string {
  const refusal = refusalOf(code)
  const status = STATUS[refusal.code]
  const content = problemDocument(refusal)
  return [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(content)}`,
    'cache-control: no-store',
    'x-content-type-options: nosniff',
    'connection: close',
    '',
    content,
  ].join('\r\n')
}

/** By the codes of Node's parser and of its time-outs (60 s for the head, 300 s for a whole request). */
function refusalOf(code: string | undefined): Refusal {
  if (code === 'HPE_HEADER_OVERFLOW')
    return new Refusal('head_too_large', 'request line and headers take more than 16 KB together')
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new Refusal('request_timeout', 'the request did not arrive in time')
  return new Refusal('bad_request', 'the connection carries something that is not a HTTP request')
}
