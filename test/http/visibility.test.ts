import { beforeAll, describe, expect, test } from 'vitest'
import { type Api, api, type Run, type Visibility } from '../support/api.ts'
import { readSse } from '../support/sse.ts'
import { expectProblem, scripted, serve } from './setup.ts'

const VISIBILITIES: readonly Visibility[] = ['user', 'operator', 'internal']
const ROLES = ['viewer', 'service', 'operator', 'admin'] as const
type Role = (typeof ROLES)[number]
/** The most that each role reads of runs of others; of its own a service reads as an operator does. */
const MOST: Record<Role, Visibility> = {
  viewer: 'user',
  service: 'user',
  operator: 'operator',
  admin: 'internal',
}

const served = await serve('postgres')
const { service } = served
const callers = {} as Record<Role, Api & { token: string }>
let own: Run
let foreign: Run

/** What there is to see: run id, visibility, sequence. */
type Seen = { run_id: string; visibility: Visibility; sequence: number }
let all: Seen[]

beforeAll(async () => {
  const bearerOf = async (name: string, role: string) => {
    const { token } = (await served.post('/api/v1/admin/tokens', { name, role })).body
    return { ...api({ url: service.url, token }), token }
  }
  for (const role of ROLES) callers[role] = await bearerOf(`the-${role}`, role)
  const other = await bearerOf('other', 'service')
  // Says something to users, does something for operators, and keeps its books.
  const body = scripted([{ say: 'hello' }, { tool: 't', result: 1 }, { return: 1 }], {
    conversation_id: 'shared',
  })
  own = await callers.service.createRun(body)
  foreign = await other.createRun(body)
  for (const { run_id } of [own, foreign]) await served.waitForRun(run_id)
  const pages = await Promise.all([own, foreign].map(({ run_id }) => served.events(run_id)))
  all = pages.flat()
})

const keysOf = (events: readonly Seen[]): string[] =>
  events.map(({ run_id, visibility, sequence }) => `${run_id} ${sequence} ${visibility}`).toSorted()

const visibleTo = (role: Role, asked: Visibility, runs: readonly Run[]): string[] => {
  const reach = ({ run_id }: Seen): number => {
    const most = role === 'service' && run_id === own.run_id ? 'operator' : MOST[role]
    return Math.min(VISIBILITIES.indexOf(most), VISIBILITIES.indexOf(asked))
  }
  const ids = runs.map(({ run_id }) => run_id)
  return keysOf(
    all.filter(
      (event) =>
        ids.includes(event.run_id) && VISIBILITIES.indexOf(event.visibility) <= reach(event),
    ),
  )
}

/** Reads until the stream has shown as many events as there are at most, or ends by itself. */
const streamed = async (role: Role, path: string, until: number): Promise<string[]> => {
  const seen: Seen[] = []
  const stream = readSse({ url: service.url + path, token: callers[role].token })
  for await (const { id, data } of stream) {
    if (id === undefined || data === undefined) continue
    seen.push(JSON.parse(data))
    if (seen.length === until) break
  }
  return keysOf(seen)
}

test('both runs have events of every visibility', () => {
  for (const { run_id } of [own, foreign])
    for (const visibility of VISIBILITIES)
      expect(all).toContainEqual(expect.objectContaining({ run_id, visibility }))
})

describe.each(ROLES)('%s', (role) => {
  describe.each(VISIBILITIES)('asking for %s', (asked) => {
    test.each(['own', 'foreign'] as const)('the events of the %s run', async (whose) => {
      const run = whose === 'own' ? own : foreign
      const events = await callers[role].events(run.run_id, { visibility: asked })
      expect(keysOf(events)).toEqual(visibleTo(role, asked, [run]))
    })

    test.each(['own', 'foreign'] as const)('the stream of the %s run', async (whose) => {
      const run = whose === 'own' ? own : foreign
      const path = `/runs/${run.run_id}/agent-events?visibility=${asked}`
      expect(await streamed(role, path, Infinity)).toEqual(visibleTo(role, asked, [run]))
    })

    test('the stream of the conversation that they share', async () => {
      const wanted = visibleTo(role, asked, [own, foreign])
      const path = `/conversations/shared/agent-events?visibility=${asked}`
      expect(await streamed(role, path, wanted.length)).toEqual(wanted)
    })

    test('the stream of the conversation, of the foreign run alone', async () => {
      const path = `/conversations/shared/agent-events?visibility=${asked}&run_id=${foreign.run_id}`
      expect(await streamed(role, path, Infinity)).toEqual(visibleTo(role, asked, [foreign]))
    })

    test('the stream of everything', async () => {
      const path = `/agent-events?visibility=${asked}`
      if (role === 'viewer' || role === 'service') {
        const refused = await callers[role].get(path)
        return expectProblem(refused, { status: 403, code: 'forbidden' })
      }
      const wanted = visibleTo(role, asked, [own, foreign])
      expect(await streamed(role, path, wanted.length)).toEqual(wanted)
    })
  })

  test('asking for nothing is asking for what operators see', async () => {
    const { body } = await callers[role].get(`/runs/${own.run_id}/events`)
    expect(keysOf(body.events)).toEqual(visibleTo(role, 'operator', [own]))
  })

  test('no event says who created its run', async () => {
    const { body } = await callers[role].get(`/runs/${own.run_id}/events`)
    for (const event of body.events) expect(event).not.toHaveProperty('created_by')
  })
})

test.each<[Role, boolean, boolean]>([
  ['viewer', false, false],
  ['service', true, false],
  ['operator', true, true],
  ['admin', true, true],
])(
  'the panel gives a %s a button to cancel: %s for the run that the service posted, %s for another',
  async (role, ofOwn, ofForeign) => {
    const statusOf = async (by: Api) => {
      const { run_id, conversation_id } = await by.createRun(scripted([{ think: 60_000 }]))
      const path = `/conversations/${conversation_id}/agent-status`
      const json = await callers[role].get(path)
      const panel = await callers[role].get(path, { accept: 'text/html' })
      await served.cancel(run_id)
      return { json: json.body.can_cancel, button: /<button/.test(panel.body) }
    }
    // That a run can be cancelled is said to all; the button is for those who may.
    expect(await statusOf(callers.service)).toEqual({ json: true, button: ofOwn })
    expect(await statusOf(served)).toEqual({ json: true, button: ofForeign })
  },
)

test('agent-status of a run that has ended says to nobody that it can be cancelled', async () => {
  const { body } = await callers.admin.get('/conversations/shared/agent-status')
  expect(body).toMatchObject({ status: 'completed', can_cancel: false })
})
