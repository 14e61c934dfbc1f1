import { connect, Socket } from 'node:net'

/** What the driver knows of where to dial; of several hosts each call takes the next. */
export interface Place {
  host: string[]
  port: number[]
  path?: string | false
}

/**
 * Dials for the driver, because its own socket ends in a trap: a connection that is accepted and closed before Postgres
 * has spoken (a proxy or a published container port whose server is down) is dialled again without a pause and without
 * end, and the statement that waits for it is never answered. Such a close is an error here, like a refused connection.
 * `open`: where the sockets are while they are open.
 */
export function dialer(silenceMs: number, open = new Set<Socket>()): (place: Place) => Socket {
  let dialled = 0
  return ({ host, port, path }) => {
    const nth = dialled % host.length
    dialled += 1
    const socket = path
      ? connect({ path })
      : connect({ host: host[nth] ?? 'localhost', port: port[nth] ?? 5432 })
    // The driver takes the name that a certificate has to be for from here.
    Object.assign(socket, { host: host[nth] })
    const closedEarly = (): void => {
      socket.destroy(
        Object.assign(new Error('closed before Postgres answered'), { code: 'ECONNRESET' }),
      )
    }
    // A silent network tells nobody. An idle connection ends the same way and is dialled again when it is needed.
    socket.setTimeout(silenceMs, () => {
      socket.destroy(Object.assign(new Error(`silent for ${silenceMs} ms`), { code: 'ETIMEDOUT' }))
    })
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    socket.once('end', closedEarly)
    socket.once('data', () => {
      socket.off('end', closedEarly)
      // Between the error of a socket and its close the driver still gives it statements, and then forgets them: nobody
      // answers, or the greeting of the next connection does, as if there were no rows. By a close that is no error they
      // are all told that the connection is gone.
      socket.destroy = () => Socket.prototype.destroy.call(socket) as Socket
    })
    return socket
  }
}
