import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'
import { type Api, api } from '../support/api.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type ModelServer, startModelServer } from '../support/model-server.ts'
import { type Service, startService } from '../support/service.ts'

/** The agent modules of these tests. */
const AGENTS = fileURLToPath(new URL('fixtures/loop', import.meta.url))

export type LoopOutside = {
  readonly model: ModelServer
  readonly effects: EffectServer
  /** What makes a service use them. */
  readonly env: Readonly<Record<string, string>>
}

/** A model provider and an outside world for the tools, ended after the tests of the file. */
export const loopOutside = async (): Promise<LoopOutside> => {
  const [model, effects] = await Promise.all([startModelServer(), startEffectServer()])
  afterAll(async () => {
    await Promise.all([model.close(), effects.close()])
  })
  const env = {
    RUNLANE_AGENTS: AGENTS,
    OPENAI_BASE_URL: model.url,
    OPENAI_API_KEY: 'test-key',
    ANTHROPIC_BASE_URL: model.url,
    ANTHROPIC_API_KEY: 'test-key',
    EFFECTS_URL: effects.url,
  }
  return { model, effects, env }
}

export type ServedLoop = Api &
  LoopOutside & {
    readonly databaseUrl: string
    /** The service that runs now. */
    service(): Service
    /** `kill -9`. */
    kill(): Promise<void>
    /** Starts it again with the same database and port, so that the client goes on with the next process. */
    restart(): Promise<void>
  }

/** A service with them, on a Postgres database of its own. Call it while tests are collected. */
export const serveLoop = async (
  outside: LoopOutside,
  env: Readonly<Record<string, string>> = {},
): Promise<ServedLoop> => {
  const databaseUrl = await freshDatabase()
  let service = await startService({ env: { ...outside.env, ...env }, databaseUrl })
  afterAll(() => service.kill())
  return {
    ...outside,
    ...api(service),
    databaseUrl,
    service: () => service,
    kill: async () => {
      await service.kill()
    },
    restart: async () => {
      service = await service.restart()
    },
  }
}

/** A run of one of the agents with the built-in loop; the message names its script. */
export const ask = (agent: string, message: string) => ({ agent, input: { message } })

/** A call that a scripted model asks for; its result is the letters of `q` in capitals. */
export const lookup = (
  q: string,
  more: { id?: string; delay_ms?: number; hang?: boolean } = {},
) => {
  const { id, ...steering } = more
  const input = { q, reply: q.toUpperCase(), ...steering }
  return { name: 'lookup', input, ...(id === undefined ? {} : { id }) }
}
