import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** A proxy between an HTTP client and a service that breaks their connections. It knows nothing of what passes. */
export type PlainProxy = {
  readonly url: string
  /** Connections so far, and those of them that were turned away. */
  accepted(): number
  refused(): number
  /** Connections now. */
  open(): number
  /** Destroys every connection, with whatever is under way on it. */
  cutAll(): void
  /** While on, new connections are reset as soon as they are made. */
  refuse(on: boolean): void
  /** While on, nothing passes and nobody is told, as in a network that loses packets. */
  freeze(on: boolean): void
  /** The next `count` answers are lost: the service has sent them, and the connection breaks instead. */
  loseAnswers(count: number): void
  /** Answers that were lost. */
  lost(): number
  close(): Promise<void>
}

export const startPlainProxy = async (upstreamUrl: string): Promise<PlainProxy> => {
  const { hostname, port } = new URL(upstreamUrl)
  const links = new Set<{ client: Socket; server: Socket }>()
  const counts = { accepted: 0, refused: 0, lost: 0, toLose: 0 }
  let refusing = false
  let frozen = false

  const server = createServer({ noDelay: true }, (client) => {
    counts.accepted += 1
    client.on('error', () => {})
    if (refusing) {
      counts.refused += 1
      client.resetAndDestroy()
      return
    }
    const upstream = connect({ host: hostname, port: Number(port), noDelay: true })
    const link = { client, server: upstream }
    links.add(link)
    const end = (): void => {
      links.delete(link)
      client.destroy()
      upstream.destroy()
    }
    upstream.on('error', end)
    client.on('data', (bytes) => frozen || upstream.write(bytes))
    upstream.on('data', (bytes) => {
      if (frozen) return
      if (counts.toLose === 0) {
        client.write(bytes)
        return
      }
      counts.toLose -= 1
      counts.lost += 1
      end()
    })
    client.on('close', end)
    upstream.on('close', end)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cutAll = (): void => {
    for (const { client, server: upstream } of links) {
      client.resetAndDestroy()
      upstream.destroy()
    }
  }

  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    accepted: () => counts.accepted,
    refused: () => counts.refused,
    open: () => links.size,
    cutAll,
    refuse: (on) => {
      refusing = on
    },
    freeze: (on) => {
      frozen = on
    },
    loseAnswers: (count) => {
      counts.toLose = count
    },
    lost: () => counts.lost,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      cutAll()
      await closed
    },
  }
}
