/** Every route, with the smallest role that may use it. The README's table is made of this; a test holds it to the app. */
export interface Route {
  method: 'GET' | 'POST' | 'DELETE'
  path: string
  role: 'none' | 'viewer' | 'service' | 'operator' | 'admin'
  does: string
}

export const ROUTES: readonly Route[] = [
  {
    method: 'POST',
    path: '/runs',
    role: 'service',
    does: 'posts a run: 202; with an `Idempotency-Key` seen before 200 and the same run',
  },
  {
    method: 'POST',
    path: '/runs/batch',
    role: 'service',
    does: 'posts up to 1,000 runs, all or nothing',
  },
  {
    method: 'GET',
    path: '/runs',
    role: 'viewer',
    does: 'lists runs, newest first; filters `status agent conversation_id queue lane_key q since`, keyset `cursor`',
  },
  {
    method: 'GET',
    path: '/runs/:run_id',
    role: 'viewer',
    does: 'the run; `?wait=30s` answers when it is terminal',
  },
  {
    method: 'GET',
    path: '/runs/:run_id/events',
    role: 'viewer',
    does: 'its committed events as JSON, after `after_sequence`',
  },
  {
    method: 'GET',
    path: '/runs/:run_id/checkpoints',
    role: 'operator',
    does: 'the boundaries it can be resumed from',
  },
  {
    method: 'GET',
    path: '/runs/:run_id/tool-results',
    role: 'operator',
    does: 'its idempotency envelope: tool calls and steps with their outcomes',
  },
  {
    method: 'GET',
    path: '/runs/:run_id/statechart',
    role: 'viewer',
    does: 'where it is in its chart, since when, how it came there, which events it accepts; `?at=` a sequence',
  },
  {
    method: 'POST',
    path: '/runs/:run_id/cancel',
    role: 'service',
    does: 'cancels it at its next safe boundary; `?wait=5s` for the terminal state',
  },
  {
    method: 'POST',
    path: '/runs/:run_id/respond',
    role: 'service',
    does: 'answers the question it waits on',
  },
  {
    method: 'POST',
    path: '/agent-runs/:run_id/resume',
    role: 'service',
    does: 'puts a failed or timed-out run back in line, to go on from its records',
  },
  {
    method: 'GET',
    path: '/runs/:run_id/agent-events',
    role: 'viewer',
    does: 'its events live (SSE); ends with the run',
  },
  {
    method: 'GET',
    path: '/conversations/:id/agent-events',
    role: 'viewer',
    does: 'the events of a conversation live (SSE)',
  },
  { method: 'GET', path: '/agent-events', role: 'operator', does: 'all events live (SSE)' },
  {
    method: 'GET',
    path: '/agents',
    role: 'viewer',
    does: 'the agents that runs can name; `problems`: modules that cannot be used, and why',
  },
  {
    method: 'GET',
    path: '/agents/:name',
    role: 'viewer',
    does: 'one agent with its tools; header values of a declared one are not shown',
  },
  {
    method: 'POST',
    path: '/agents',
    role: 'admin',
    does: 'declares an agent as JSON, or replaces the declared one of that name: 201 or 200',
  },
  {
    method: 'DELETE',
    path: '/agents/:name',
    role: 'admin',
    does: 'forgets a declared agent; runs of it that are not over will fail with `unknown_agent`',
  },
  { method: 'GET', path: '/machines', role: 'viewer', does: 'the statecharts' },
  {
    method: 'GET',
    path: '/machines/:file',
    role: 'viewer',
    does: 'one of them as JSON, `.svg` or `.mmd`',
  },
  { method: 'GET', path: '/healthz', role: 'none', does: 'the process answers' },
  {
    method: 'GET',
    path: '/readyz',
    role: 'none',
    does: 'database, lease and node are fit to serve',
  },
  { method: 'GET', path: '/', role: 'none', does: 'the console' },
]

/** The table as Markdown. */
export function routeTable(): string {
  const rows = ROUTES.map(
    ({ method, path, role, does }) =>
      `| \`${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}\` | ${role} | ${does} |`,
  )
  return ['| route | role | |', '| --- | --- | --- |', ...rows, ''].join('\n')
}
