/** What the service takes and answers, in types that are taken from the schemas that it validates with. */
import type { z } from 'zod'
import type * as admin from '../http/contract/admin.ts'
import type * as agents from '../http/contract/agents.ts'
import type * as charts from '../http/contract/charts.ts'
import type * as conversations from '../http/contract/conversations.ts'
import type { Endpoint, Role } from '../http/contract/endpoint.ts'
import type * as objects from '../http/contract/objects.ts'
import type { runBody } from '../http/contract/run-body.ts'
import type * as runs from '../http/contract/runs.ts'
import type { bulkRuns } from '../http/contract/bulk.ts'
import type * as runtime from '../http/contract/runtime.ts'
import type * as service from '../http/contract/service.ts'
import type { RunStatus, Visibility } from '../store/rows.ts'

export type { FieldError } from '../errors.ts'
export type { Json } from '../json.ts'
export type { Role, RunStatus, Visibility }

type Answers<E extends Endpoint, S extends keyof E['answers']> = E['answers'][S] extends z.ZodType
  ? z.output<E['answers'][S]>
  : never

/** A run as `GET /runs/{run_id}` answers it. */
export type Run = z.output<typeof objects.run>
/** A run as lists have it: without `input`, `output` and `cancel`. */
export type RunSummary = z.output<typeof objects.runSummary>
/** A committed fact about a run. `id` ascends over all runs and is a safe cursor; `sequence` counts within its run. */
export type RunEvent = z.output<typeof objects.event>
/** A boundary that a run can be resumed or forked from. */
export type Checkpoint = z.output<typeof objects.checkpoint>
/** A row of the idempotency envelope: a tool call, step or model call with its outcome. */
export type ToolResult = z.output<typeof objects.toolResult>
/** One stay of a run in active. */
export type Attempt = z.output<typeof objects.attempt>
/** The structured digest that an agent keeps of its conversation. */
export type Journal = z.output<typeof objects.journal>
/** A command that was written, and its run as it was then. */
export type Commanded = z.output<typeof objects.commanded>
/** Where a run is in its chart, and what it accepts. */
export type Statechart = z.output<typeof objects.statechart>
/** What a resume would replay, and what is in its way. */
export type ResumePreview = z.output<typeof objects.resumePreview>
/** Why a run is where it is, in a sentence and as the chain of what it waits for. */
export type Diagnosis = z.output<typeof objects.diagnosis>
/** What operators open first: all that goes on, and how much of it there is. */
export type Snapshot = Answers<typeof runtime.getSnapshot, 200>
/** What an action on many runs would do (`dry_run`), or what became of each of them. */
export type Bulk = Answers<typeof bulkRuns, 200>
/** The runs that a sweep has recycled. */
export type Sweep = Answers<typeof runtime.sweep, 200>
/** What a chat surface shows of its conversation. */
export type AgentStatus = z.output<typeof conversations.agentStatus>
/** A page of runs. `cursor`: the event id that a stream goes on from without a gap. */
export type RunPage = Answers<typeof runs.listRuns, 200>
export type EventPage = Answers<typeof runs.listRunEvents, 200>
export type CheckpointPage = Answers<typeof runs.listCheckpoints, 200>
export type ToolResultPage = Answers<typeof runs.listToolResults, 200>
export type ChildPage = Answers<typeof runs.listChildren, 200>
export type AttemptPage = Answers<typeof runs.listAttempts, 200>
/** The agents that runs can name, and the modules that cannot be used. */
export type AgentPage = Answers<typeof agents.listAgents, 200>
export type AgentSummary = AgentPage['agents'][number]
export type Agent = Answers<typeof agents.getAgent, 200>
/** An agent declared as JSON. */
export type DeclaredAgent = z.input<typeof agents.declareAgent.body>
export type MachinePage = Answers<typeof charts.listMachines, 200>
/** A statechart as plain JSON: its states and transitions. */
export type Machine = Answers<typeof charts.getMachine, 200>
export type TokenPage = Answers<typeof admin.listTokens, 200>
/** An API token, without its secret. */
export type ApiToken = TokenPage['tokens'][number]
/** The one answer that has the secret, as `token`; undefined where an earlier request under the same key has made it. */
export type NewApiToken = ApiToken & { token?: string | undefined }
export type AuditPage = Answers<typeof admin.listAudit, 200>
export type AuditRow = AuditPage['audit'][number]
export type NodePage = Answers<typeof admin.listNodes, 200>
/** A replica of the service. */
export type Node = NodePage['nodes'][number]
/** Who is asking, and with which role. */
export type Identity = Answers<typeof service.whoAmI, 200>
export type Readiness = Answers<typeof service.readyz, 200>
export type Health = Answers<typeof service.healthz, 200>

/**
 * What `POST /runs` takes. Only `agent` is required. `input` and `metadata` must be what JSON can carry: whatever it
 * cannot is left out or becomes null, as `JSON.stringify` does.
 */
export type RunDraft = Omit<z.input<typeof runBody>, 'input' | 'metadata'> & {
  input?: unknown
  metadata?: Readonly<Record<string, unknown>>
}

/** What is said of a call whose outcome is not known; `result` goes with `succeeded`. */
export interface Resolution {
  readonly outcome: 'succeeded' | 'failed' | 'retry'
  readonly result?: unknown
}
