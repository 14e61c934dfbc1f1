export const urlOf = (host: string, port: number): string =>
  `http://${host.includes(':') ? `[${host}]` : host}:${port}`

/** What `npm start` prints: where it listens, how to get in, a line that runs a real run and one that watches it. */
export function welcome(facts: {
  host: string
  port: number
  token: string
  configured: boolean
  /** A model provider is set: the agent `assistant` is there. */
  assistant: boolean
}): string {
  const url = urlOf(facts.host, facts.port)
  // A token from the environment is known to whoever set it; printing it would only put it into logs.
  const token = facts.configured ? '$RUNLANE_ADMIN_TOKEN' : facts.token
  const auth = `-H "Authorization: Bearer ${token}"`
  const run = JSON.stringify({
    agent: 'scripted',
    conversation_id: 'demo',
    input: {
      steps: [
        { say: 'Looking that up…', chunks: 4, ms: 800 },
        { tool: 'search', ms: 3000, effects: 'idempotent', result: 'found' },
        { say: 'Done.' },
      ],
    },
  })
  const hello = JSON.stringify({ agent: 'assistant', input: { message: 'Hello!' } })
  const post = (path: string, body: string): string =>
    `    curl -s '${url}${path}' ${auth} -H 'Content-Type: application/json' -d '${body}'`
  return [
    `runlane listening on ${url}`,
    `  console  ${url}/`,
    `  token    ${token}`,
    '',
    '  post a run:',
    post('/runs', run),
    '  watch it, in another terminal:',
    `    curl -sN ${url}/conversations/demo/agent-events ${auth}`,
    ...(facts.assistant ? ['  ask a model:', post('/runs', hello)] : []),
    '',
    '',
  ].join('\n')
}
