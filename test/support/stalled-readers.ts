import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import type { Service } from './service.ts'
import { type SseFrame, sseParser } from './sse.ts'

/** What the service's process holds in memory now, in bytes. */
export const residentBytes = ({ pid }: Pick<Service, 'pid'>): number => {
  const [, kb = '0'] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kb) * 1024
}

/** A reader that asks for all events and takes only the first bytes of the answer until told to go on. */
export const stalledReader = async ({ url, token }: Service): Promise<Socket> => {
  const { port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1')
  const lines = [
    'GET /agent-events?visibility=internal HTTP/1.0',
    'Host: 127.0.0.1',
    `Authorization: Bearer ${token}`,
  ]
  socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  await new Promise((resolve) => socket.once('readable', resolve))
  return socket
}

/** The frames after the head of the answer, as far as they have come; the socket is read from now on. */
export const drained = (socket: Socket): (() => SseFrame[]) => {
  const parse = sseParser()
  const frames: SseFrame[] = []
  let head: Buffer | null = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    if (head === null) {
      frames.push(...parse(chunk))
      return
    }
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end === -1) return
    frames.push(...parse(head.subarray(end + 4)))
    head = null
  })
  return () => frames
}

/**
 * What the system holds for each reader of the service and could not send, in bytes, by the reader's port. A reader that is
 * stalled keeps its number, whatever the service has to tell it.
 */
export const unsentBytes = ({ url }: Pick<Service, 'url'>): Map<number, number> => {
  const ours = Number(new URL(url).port)
  const unsent = new Map<number, number>()
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, local = '', remote = '', state, queues = ''] = line.trim().split(/\s+/)
    if (state !== ESTABLISHED || portOf(local) !== ours) continue
    unsent.set(portOf(remote), Number.parseInt(queues, 16))
  }
  return unsent
}

const ESTABLISHED = '01'
const portOf = (address: string): number => Number.parseInt(address.split(':')[1] ?? '', 16)
