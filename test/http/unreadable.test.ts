import { connect, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { expect, onTestFinished, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { serve } from './setup.ts'

const { service } = await serve('postgres')
const { hostname, port } = new URL(service.url)

const dial = (): Socket => {
  const socket = connect(Number(port), hostname)
  onTestFinished(() => void socket.destroy())
  return socket
}
/** What comes back until the service closes the connection. */
const answerTo = (bytes: string): Promise<string> => {
  const socket = dial()
  socket.write(bytes)
  return text(socket)
}
const problemIn = (answer: string): unknown => JSON.parse(answer.split('\r\n\r\n')[1] ?? '')
const request = (head: string): string => `GET /healthz HTTP/1.1\r\nHost: runlane\r\n${head}\r\n`

test.each([
  ['a path of 20,000 characters', `GET /${'x'.repeat(20_000)} HTTP/1.1\r\nHost: runlane\r\n\r\n`],
  ['a header of 20,000 characters', request(`Cookie: ${'x'.repeat(20_000)}\r\n`)],
])('%s is refused as a problem document, and the connection closed', async (_name, bytes) => {
  const answer = await answerTo(bytes)

  expect(answer).toMatch(/^HTTP\/1\.1 431 Request Header Fields Too Large\r\n/)
  expect(answer).toMatch(/\r\ncontent-type: application\/problem\+json\r\n/i)
  expect(answer).toMatch(/\r\nx-content-type-options: nosniff\r\n/i)
  expect(problemIn(answer)).toEqual({
    type: 'about:blank',
    title: 'Request Header Fields Too Large',
    status: 431,
    code: 'head_too_large',
    detail: 'request line and headers take more than 16 KB together',
  })
})

test.each([
  ['no HTTP at all', 'hello\r\n\r\n'],
  ['a header without a colon', request('nonsense\r\n')],
  ['a length that is no number', request('Content-Length: many\r\n')],
  ['two lengths', request('Content-Length: 1\r\nContent-Length: 2\r\n')],
])('%s is refused as a problem document, and the connection closed', async (_name, bytes) => {
  const answer = await answerTo(bytes)

  expect(answer).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
  expect(answer).toMatch(/\r\nconnection: close\r\n/i)
  expect(problemIn(answer)).toMatchObject({ status: 400, code: 'bad_request' })
})

test('a good request before it is answered first', async () => {
  const socket = dial()
  let seen = ''
  socket.setEncoding('utf8').on('data', (part: string) => (seen += part))
  socket.write(request(''))
  await eventually(() => Promise.resolve(seen.includes('HTTP/1.1 200')))

  socket.write('hello\r\n\r\n')

  await eventually(() => Promise.resolve(seen.includes('HTTP/1.1 400 Bad Request')))
})

test('nothing is written into the middle of a stream', async () => {
  const socket = dial()
  let seen = ''
  socket.setEncoding('utf8').on('data', (part: string) => (seen += part))
  const closed = new Promise((resolve) => socket.once('close', resolve))
  const authorization = `Authorization: Bearer ${service.token}\r\n`
  socket.write(request(authorization).replace('/healthz', '/agent-events'))
  await eventually(() => Promise.resolve(seen.includes('HTTP/1.1 200')))

  socket.write('hello\r\n\r\n')
  await closed

  expect(seen).not.toContain('HTTP/1.1 400')
})

test('the service goes on, and logs no error', async () => {
  expect((await fetch(`${service.url}/healthz`)).status).toBe(200)
  expect(service.stderr()).not.toMatch(/"level":"error"/)
})
