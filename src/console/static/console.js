import { json, pause } from '/console/requests.js'
import { logIn, logOut, mayActOn, mayOperate, mayPost, resumed } from '/console/session.js'
import { createStore } from '/console/store/xstate-store.js'

const RUNS_SHOWN = 100
const EVENTS_SHOWN = 200
/** How often the page asks where its role may not read the stream of all runs, in milliseconds. */
const ASK_MS = 2_000
const byId = (id) => document.getElementById(id)

/** What the page shows. Everything on it is drawn from here. */
const store = createStore({
  context: { who: null, connection: 'not connected', runs: [], selected: null, events: [] },
  on: {
    opened: (context, { who }) => ({ ...context, who }),
    ended: (context) => ({ ...context, who: null, runs: [], selected: null, events: [] }),
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

/** Snapshot, then what happens from its cursor on: nothing is missed in between. Starts over whenever that ends. */
async function follow() {
  const live = mayOperate(store.getSnapshot().context.who)
  for (let failures = 0; ;) {
    try {
      const { runs, cursor } = await json(`/runs?limit=${RUNS_SHOWN}`)
      store.send({ type: 'listed', runs })
      const { selected } = store.getSnapshot().context
      if (selected) await select(selected)
      if (!live) {
        failures = 0
        store.send({ type: 'connected', connection: 'polling' })
        await pause(ASK_MS)
        continue
      }
      failures = (await stream(cursor)) ? 0 : failures + 1
    } catch (error) {
      if (error.status === 401) return login('Your session has ended.')
      failures += 1
    }
    store.send({ type: 'connected', connection: 'stale' })
    await pause(Math.min(500 * 2 ** failures, 10_000) * (0.5 + Math.random() / 2))
  }
}

/**
 * Resolves when the stream has to be read anew: it was reset, says goodbye, or broke; with whether it was open at all.
 * The browser would go on by itself from the last event, but never again after an answer of 502 or 503 on the way; and
 * with a new snapshot the page catches up at once, however much it has missed.
 */
function stream(cursor) {
  const source = new EventSource(`/agent-events?after_event_id=${cursor}`)
  let opened = false
  return new Promise((resolve) => {
    const end = () => {
      source.close()
      resolve(opened)
    }
    source.addEventListener('open', () => {
      opened = true
      store.send({ type: 'connected', connection: 'live' })
    })
    source.addEventListener('message', ({ data }) => happened(JSON.parse(data)))
    for (const over of ['error', 'reset', 'bye']) source.addEventListener(over, end)
  })
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

function drawRuns({ who, runs, selected }) {
  byId('no-runs').hidden = runs.length > 0
  byId('demo').hidden = !mayPost(who)
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

async function drawDetail({ who, runs, selected, events }) {
  const run = runs.find((one) => one.run_id === selected)
  byId('detail').hidden = !run
  if (!run) {
    for (const id of ['detail-title', 'facts', 'events']) byId(id).replaceChildren()
    return
  }
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
  for (const action of ['cancel', 'resume']) byId(action).hidden = !mayActOn(who, run)
  byId('cancel').disabled = run.ended_at !== null || run.status === 'cancel_requested'
  byId('resume').disabled = !run.metadata.resume_available
  byId('events').replaceChildren(
    ...events.map((event) => {
      const item = element('li', `${event.event_type} `, { value: event.sequence })
      item.append(element('code', JSON.stringify(event.payload)))
      return item
    }),
  )
  chart ??= fetch('/machines/run.svg').then(async (response) => {
    if (response.ok) return response.text()
    chart = null
    return ''
  })
  // The only markup that is taken over: the chart, drawn by this service from its own code.
  if (!byId('chart').firstChild) byId('chart').innerHTML = await chart
  for (const state of document.querySelectorAll('#chart [data-status]')) {
    state.toggleAttribute('data-lit', state.dataset.status === run.status)
  }
}

function login(problem = '') {
  byId('login-problem').textContent = problem
  byId('login').hidden = false
  byId('content').hidden = true
  byId('session').hidden = true
  store.send({ type: 'connected', connection: 'not connected' })
  // What the last person could see is not for the next one.
  store.send({ type: 'ended' })
  byId('token').focus()
}

function open(who) {
  store.send({ type: 'opened', who })
  byId('login').hidden = true
  byId('content').hidden = false
  byId('session').hidden = false
  byId('who').textContent = `${who.name}, ${who.role}`
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
byId('log-out').addEventListener('click', () => {
  // What this person could see leaves the page with them.
  const left = () => location.reload()
  const failed = (error) => {
    byId('session-problem').textContent = `Not logged out: ${error.message}`
  }
  void logOut().then(left, failed)
})
byId('login').addEventListener('submit', (event) => {
  event.preventDefault()
  const token = byId('token').value.trim()
  byId('token').value = ''
  byId('login-problem').textContent = ''
  void logIn(token).then(open, (error) => login(error.message))
})
try {
  const who = await resumed(() => store.send({ type: 'connected', connection: 'stale' }))
  if (who) open(who)
  else login()
} catch (error) {
  login(error.message)
}
