import type { AgentDirectory } from '../../agents/directory.ts'
import { RunError } from '../../agents/agent.ts'
import { McpConnections } from '../../agents/mcp.ts'
import type { ModelFinder } from '../../agents/model-call.ts'
import { agentFiles } from '../../agents/modules.ts'
import type { Outbound } from '../../agents/outbound.ts'
import { scriptedAgent } from '../../agents/scripted.ts'
import { Toolbox } from '../../agents/toolbox.ts'
import { systemClock } from '../../clock.ts'
import { describeModules } from './describe.ts'
import { localExecutor, type StartSession } from './executor.ts'
import { ThreadPool } from './pool.ts'

export interface LocalOptions {
  agents: AgentDirectory
  outbound: Outbound
  allow: readonly string[]
  version: string
  /** What agent code sees as its environment. */
  environment: Readonly<Record<string, string | undefined>>
  /** After so long a blocked thread that several runs share is ended. */
  silenceMs: number
  onUncaught: (runId: string | null, message: string) => void
}

/** Scripts call no models, so the main thread does without the SDKs of providers, which read the environment. */
const noModel: ModelFinder = () => {
  throw new RunError('no_model', 'the scripted agent has no models')
}

/** What a node gives to its executor. */
export interface NodeFacts {
  /** The lease deadline in shared memory. */
  deadline: SharedArrayBuffer
  retried: <T>(read: () => Promise<T>) => Promise<T>
}

/** The local executor of a service: its threads, and the agent modules that they load. */
export class LocalExecutors {
  #options: LocalOptions
  #pools = new Set<ThreadPool>()
  #loads = 0

  constructor(options: LocalOptions) {
    this.#options = options
  }

  /** What a node starts its sessions with. */
  forNode({ deadline, retried }: NodeFacts): StartSession {
    const { agents, outbound, version } = this.#options
    const pool = new ThreadPool({
      ...this.#threadOptions(deadline),
      silenceMs: this.#options.silenceMs,
    })
    this.#pools.add(pool)
    const agent = scriptedAgent(outbound)
    const tools = {
      toolbox: new Toolbox(agent, new McpConnections({ version })),
      findModel: noModel,
    }
    return localExecutor({ agents, retried, scripted: { agent, tools }, pool })
  }

  /** Reads the agent modules of a folder anew; runs that go on keep the code that they have. */
  async load(folder: string): Promise<void> {
    this.#loads += 1
    const turn = this.#loads
    const files = await agentFiles(folder)
    const options = this.#threadOptions(new SharedArrayBuffer(8))
    const { cards, problems } = await describeModules(files, options)
    // A module that takes long to import holds this up: the folder may have been read anew meanwhile.
    if (turn !== this.#loads) return
    this.#options.agents.setCode(cards, problems)
    for (const pool of this.#pools) pool.renew()
  }

  /** Resolves when no thread is left, after about a second at most. */
  async close(): Promise<void> {
    await Promise.all([...this.#pools].map((pool) => pool.close()))
  }

  #threadOptions(deadline: SharedArrayBuffer) {
    const { allow, version, environment, onUncaught } = this.#options
    const { monotonicMs } = systemClock
    return { deadline, allow, version, environment, onUncaught, monotonicMs }
  }
}
