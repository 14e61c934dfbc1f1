import type { AgentDirectory } from '../../agents/directory.ts'
import { McpConnections } from '../../agents/mcp.ts'
import { agentFiles } from '../../agents/modules.ts'
import type { Outbound } from '../../agents/outbound.ts'
import { scriptedAgent } from '../../agents/scripted.ts'
import { Toolbox } from '../../agents/toolbox.ts'
import { systemClock } from '../../clock.ts'
import { modelFinder } from '../../providers/models.ts'
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

  constructor(options: LocalOptions) {
    this.#options = options
  }

  /** What a node starts its sessions with. */
  forNode({ deadline, retried }: NodeFacts): StartSession {
    const { agents, outbound, version, environment } = this.#options
    const pool = new ThreadPool({
      ...this.#threadOptions(deadline),
      silenceMs: this.#options.silenceMs,
    })
    this.#pools.add(pool)
    const agent = scriptedAgent(outbound)
    const tools = {
      toolbox: new Toolbox(agent, new McpConnections({ version })),
      findModel: modelFinder(environment),
    }
    return localExecutor({ agents, retried, scripted: { agent, tools }, pool })
  }

  /** Reads the agent modules of a folder anew; runs that go on keep the code that they have. */
  async load(folder: string): Promise<void> {
    const files = await agentFiles(folder)
    const options = this.#threadOptions(new SharedArrayBuffer(8))
    const { cards, problems } = await describeModules(files, options)
    this.#options.agents.setCode(cards, problems)
    for (const pool of this.#pools) pool.renew()
  }

  close(): void {
    for (const pool of this.#pools) pool.close()
  }

  #threadOptions(deadline: SharedArrayBuffer) {
    const { allow, version, environment, onUncaught } = this.#options
    const { monotonicMs } = systemClock
    return { deadline, allow, version, environment, onUncaught, monotonicMs }
  }
}
