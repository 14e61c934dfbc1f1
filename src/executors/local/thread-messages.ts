import type { MessagePort } from 'node:worker_threads'
import type {
  ChildReport,
  Delegation,
  Job,
  SessionCall,
  SessionMessage,
  Signal,
} from '../../agents/port.ts'
import type { OnOrphan } from '../../agents/on-orphan.ts'
import type { Timeouts } from '../../agents/agent.ts'
import type { AgentCard, AgentSource } from '../../agents/source.ts'

/** What goes over to a thread at its start. */
export interface ThreadData {
  /** The lease deadline in shared memory: the thread checks it itself before each effect. */
  deadline: SharedArrayBuffer
  /** Where the thread writes that its loop turns: monotonic milliseconds. */
  pulse: SharedArrayBuffer
  /** Hosts that declared agents may reach although they are private. */
  allow: readonly string[]
  version: string
  /** Ours alone: `parentPort` is in reach of agent code. */
  port: MessagePort
}

/** A job with the agent that does it. */
export interface Assignment {
  job: Job
  source: AgentSource
  timeouts: Timeouts
  on_orphan: OnOrphan
}

export type ToThread =
  | { type: 'start'; session: number; assignment: Assignment }
  | { type: 'cancel' | 'drain' | 'kill'; session: number }
  | { type: 'cleared'; session: number; id: number; accepted: boolean }
  | { type: 'answered'; session: number; id: number; answer: ChildReport | Signal }
  | { type: 'closed'; session: number; id: number }
  | { type: 'describe'; session: number; file: string }

export type Description = { card: AgentCard } | { problem: string }

export type FromThread =
  | { type: 'send'; session: number; message: SessionMessage }
  | { type: 'barrier' | 'clearance'; session: number; id: number }
  | { type: 'begin'; session: number; id: number; call: SessionCall; timeoutMs: number | null }
  | { type: 'delegate'; session: number; id: number; call: SessionCall; child: Delegation }
  | { type: 'report'; session: number; id: number; child_run_id: string }
  | { type: 'signal'; session: number; id: number; name: string }
  | { type: 'park'; session: number; id: number; calls: SessionCall[] }
  | { type: 'begun'; session: number }
  | { type: 'beat'; session: number }
  /** The session's code has ended; `abandoned`: it was told to and did not, and may go on by itself. */
  | { type: 'over'; session: number; abandoned: boolean }
  /** An error that nobody caught; null when it cannot be said whose. */
  | { type: 'uncaught'; session: number | null; message: string }
  | { type: 'process'; pid: number; alive: boolean }
  | { type: 'described'; session: number; description: Description }
