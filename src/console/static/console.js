import { createStore } from '/console/store/xstate-store.js'

const RUNS_SHOWN = 100
const EVENTS_SHOWN = 200
const byId = (id) => document.getElementById(id)

/** What the page shows. Everything on it is drawn from here. */
const store = createStore({
  context: { connection: 'not connected', runs: [], selected: null, events: [] },
  on: {
    connected: (context, { connection }) => ({ ...context, connection }),
    listed: (context, { runs }) => ({ ...context, runs }),
    changed: (context, { run }) => ({
      ...context,
      runs: [run, ...context.runs.filter((one) => one.run_id !== run.run_id)]
        .toSorted((a, b) => (a.run_id < b.run_id ? 1 : -1))
        .slice(0, RUNS_SHOWN),
    }),
    selected: (context, { runId, events }) => ({ ...context, selected: runId, events }),
    happened: (context, { event }) =>
      event.run_id === context.selected && event.sequence > (context.events.at(-1)?.sequence ?? 0)
        ? { ...context, events: [...context.events, event].slice(-EVENTS_SHOWN) }
        : context,
  },
})

const token = () => sessionStorage.getItem('token')
const request = (path, options = {}) =>
  fetch(path, {
    ...options,
    headers: { authorization: `Bearer ${token()}`, 'content-type': 'application/json' },
  })

async function json(path, options) {
  const response = await request(path, options)
  const body = await response.json()
  if (!response.ok)
    throw Object.assign(new Error(body.detail ?? response.statusText), { status: response.status })
  return body
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Snapshot, then the stream from its cursor: nothing is missed in between. Starts over whenever the stream ends. */
async function follow() {
  for (let failures = 0; token();) {
    try {
      const { runs, cursor } = await json(`/runs?limit=${RUNS_SHOWN}`)
      store.send({ type: 'listed', runs })
      if (store.getSnapshot().context.selected) await select(store.getSnapshot().context.selected)
      await stream(cursor)
      failures = 0
    } catch (error) {
      if (error.status === 401) return login('This token is not known here.')
      failures += 1
    }
    store.send({ type: 'connected', connection: 'stale' })
    await pause(Math.min(500 * 2 ** failures, 10_000) * (0.5 + Math.random() / 2))
  }
}

async function stream(cursor) {
  const response = await request(`/agent-events?after_event_id=${cursor}`)
  if (!response.ok) throw Object.assign(new Error(response.statusText), { status: response.status })
  store.send({ type: 'connected', connection: 'live' })
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    text += value
    const frames = text.split('\n\n')
    text = frames.pop()
    for (const frame of frames) {
      if (frame.startsWith('event:')) return reader.cancel()
      const data = frame.split('\n').find((line) => line.startsWith('data: '))
      if (data) happened(JSON.parse(data.slice(6)))
    }
  }
}

const due = new Set()

function happened(event) {
  store.send({ type: 'happened', event })
  if (event.event_type === 'message_delta') return
  if (due.size === 0) setTimeout(refresh, 200)
  due.add(event.run_id)
}

async function refresh() {
  const runIds = [...due].slice(-RUNS_SHOWN)
  due.clear()
  for (const runId of runIds) {
    const run = await json(`/runs/${runId}`).catch(() => null)
    if (run) store.send({ type: 'changed', run })
  }
}

async function select(runId) {
  const run = await json(`/runs/${runId}`)
  const { events } = await json(`/runs/${runId}/events?limit=1000`)
  store.send({ type: 'changed', run })
  store.send({ type: 'selected', runId, events: events.slice(-EVENTS_SHOWN) })
}

async function act(path, body = {}) {
  byId('action-problem').textContent = ''
  try {
    await json(path, { method: 'POST', body: JSON.stringify(body) })
  } catch (error) {
    byId('action-problem').textContent = error.message
  }
}

/** Agents' text is shown as text, never as markup. */
function element(tag, text, attributes = {}) {
  const made = document.createElement(tag)
  made.textContent = text ?? ''
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  return made
}

function drawRuns({ runs, selected }) {
  byId('no-runs').hidden = runs.length > 0
  const focused = document.activeElement?.dataset?.run
  byId('runs').replaceChildren(
    ...runs.map((run) => {
      const row = element('tr', '', { 'aria-current': String(run.run_id === selected) })
      const button = element('button', run.run_id.slice(-8), {
        type: 'button',
        'data-run': run.run_id,
        title: run.run_id,
      })
      const first = element('td', '')
      first.append(button)
      const since = run.ended_at ?? run.last_progress_at ?? run.created_at
      row.append(
        first,
        element('td', statusOf(run), {
          'data-status': run.status,
          ...(run.stuck_reason ? { 'data-stuck': run.stuck_reason } : {}),
        }),
        element('td', run.agent),
        element('td', run.lane_key, { title: run.lane_key }),
        element('td', run.phase ?? run.error_message ?? run.saying, { title: run.saying ?? '' }),
        element('td', new Date(since).toLocaleTimeString(), { title: since }),
      )
      return row
    }),
  )
  if (focused) document.querySelector(`[data-run="${CSS.escape(focused)}"]`)?.focus()
}

const statusOf = (run) => {
  const notes = [run.detail, run.stuck_reason && `stuck: ${run.stuck_reason}`].filter(Boolean)
  return notes.length > 0 ? `${run.status} (${notes.join(', ')})` : run.status
}

let chart = null

async function drawDetail({ runs, selected, events }) {
  const run = runs.find((one) => one.run_id === selected)
  byId('detail').hidden = !run
  if (!run) return
  byId('detail-title').textContent = run.run_id
  const facts = {
    status: statusOf(run),
    conversation: run.conversation_id,
    lane: run.lane_key,
    attempt: run.attempt,
    node: run.node_id ?? 'none',
    saying: run.saying,
    error: run.error_message,
    resume: run.metadata.resume_available ? 'possible' : run.resume_blocker,
  }
  byId('facts').replaceChildren(
    ...Object.entries(facts)
      .filter(([, value]) => value !== null && value !== undefined)
      .flatMap(([name, value]) => [element('dt', name), element('dd', String(value))]),
  )
  byId('cancel').disabled = run.ended_at !== null || run.status === 'cancel_requested'
  byId('resume').disabled = !run.metadata.resume_available
  byId('events').replaceChildren(
    ...events.map((event) => {
      const item = element('li', `${event.event_type} `, { value: event.sequence })
      item.append(element('code', JSON.stringify(event.payload)))
      return item
    }),
  )
  chart ??= request('/machines/run.svg').then((response) => response.text())
  // The only markup that is taken over: the chart, drawn by this service from its own code.
  if (!byId('chart').firstChild) byId('chart').innerHTML = await chart
  for (const state of document.querySelectorAll('#chart [data-status]')) {
    state.toggleAttribute('data-lit', state.dataset.status === run.status)
  }
}

function login(problem = '') {
  sessionStorage.removeItem('token')
  byId('login-problem').textContent = problem
  byId('login').hidden = false
  byId('content').hidden = true
  byId('forget').hidden = true
  byId('token').focus()
}

function open() {
  byId('login').hidden = true
  byId('content').hidden = false
  byId('forget').hidden = false
  void follow()
}

store.subscribe(({ context }) => {
  byId('connection').textContent = context.connection
  byId('connection').dataset.state = context.connection
  drawRuns(context)
  void drawDetail(context)
})
byId('runs').addEventListener(
  'click',
  ({ target }) => target.dataset?.run && void select(target.dataset.run),
)
byId('cancel').addEventListener('click', () =>
  act(`/runs/${store.getSnapshot().context.selected}/cancel`),
)
byId('resume').addEventListener('click', () =>
  act(`/agent-runs/${store.getSnapshot().context.selected}/resume`),
)
byId('demo').addEventListener('click', () =>
  act('/runs', {
    agent: 'scripted',
    conversation_id: 'demo',
    input: {
      steps: [
        { say: 'Looking that up…', chunks: 4, ms: 800 },
        { tool: 'search', ms: 3000, effects: 'idempotent', result: 'found' },
        { say: 'Done.' },
      ],
    },
  }),
)
byId('forget').addEventListener('click', () => {
  sessionStorage.removeItem('token')
  location.reload()
})
byId('login').addEventListener('submit', (event) => {
  event.preventDefault()
  sessionStorage.setItem('token', byId('token').value.trim())
  open()
})
if (token()) open()
else login()
