import { describe, expect, test } from 'vitest'
import type { AutoTerminate, OwnLimits } from '../../src/runtime/supervision/clocks.ts'
import { Watchdog, type Watched } from '../../src/runtime/supervision/watchdog.ts'
import { ticking } from '../support/ticking.ts'

const LIMITS = { reasoning: 30_000, tool: 150_000, turn: 600_000, executor: 15_000 }

const ofRun = (run: OwnLimits): Pick<Watched, 'own'> => ({ own: { agent: {}, run } })

/** A run under a simulated clock, looked at every second. */
function stage(facts: Partial<Watched> = {}, autoTerminate: AutoTerminate = { mode: 'off' }) {
  let now = 1_000_000
  const said: { type: string; stuck_reason?: string; since?: string; limit_ms?: number }[] = []
  const run: Watched = {
    runId: 'run_1',
    status: 'running',
    stuckClock: null,
    stuckReason: null,
    stuckCall: null,
    stuckSince: null,
    judged: false,
    override: null,
    begun: true,
    turnSince: now,
    turnExtraMs: 0,
    turnLimitFrom: -Infinity,
    movedAt: now,
    calls: [{ tool_call_id: 'tool_1', movedAt: now, timeout_ms: null }],
    executorSilentMs: 0,
    probe: 'alive',
    own: { agent: {}, run: {} },
    forgive: (ms) => {
      run.turnSince += ms
      run.movedAt += ms
      for (const call of run.calls) call.movedAt += ms
      if (run.stuckSince !== null) run.stuckSince += ms
    },
    send: (message) => {
      said.push(message)
      if (message.type === 'verdict.noted') run.judged = true
      else if (message.type === 'stuck.noted') {
        run.stuckClock = message.clock
        run.stuckReason = message.stuck_reason
        run.stuckCall = message.tool_call_id
        run.stuckSince ??= now
      } else {
        const calm = { stuckClock: null, stuckReason: null, stuckCall: null, stuckSince: null }
        Object.assign(run, calm)
      }
    },
    tell: () => {},
    ...facts,
  }
  const outside = { away: false }
  const watchdog = new Watchdog({
    runs: () => [run],
    limits: LIMITS,
    autoTerminate,
    isAway: () => outside.away,
    end: async (_runId, messages) => said.push(...messages),
    monotonicMs: () => now,
    now: () => now,
  })
  const supervisor = ticking(watchdog, () => now)
  const pass = (seconds: number, each: () => void = () => {}): void => {
    for (let nth = 0; nth < seconds; nth += 1) {
      now += 1_000
      each()
      supervisor.tick()
    }
  }
  const sleep = (ms: number): void => void (now += ms)
  const freeze = (ms: number): void => {
    sleep(ms)
    supervisor.tick()
  }
  const reasons = () => said.map(({ type, stuck_reason }) => stuck_reason ?? type)
  return { run, supervisor, said, reasons, pass, sleep, freeze, outside, at: () => now }
}

describe('each clock finds what it is for, at its limit and not before', () => {
  test.each([
    ['running', 'reasoning.no_progress(30s)', 30],
    ['waiting_on_tool', 'tool_call.timeout(150s)', 150],
  ] as const)('%s: %s', (status, reason, seconds) => {
    const { pass, said, reasons, run } = stage({ status })
    pass(seconds)
    expect(reasons()).toEqual([])
    pass(1)
    expect(reasons()).toEqual([reason])
    expect(said[0]).toMatchObject({
      limit_ms: seconds * 1_000,
      since: new Date(run.movedAt).toISOString(),
      tool_call_id: status === 'waiting_on_tool' ? 'tool_1' : null,
    })
  })

  test('a run that waits for its children has none: they have their own', () => {
    const { pass, reasons } = stage({ status: 'waiting_on_child' })
    pass(7_200)
    expect(reasons()).toEqual([])
  })

  test('a run that its executor has not begun is judged by none', () => {
    const { run, pass, reasons } = stage({ begun: false })
    pass(7_200, () => (run.executorSilentMs += 1_000))
    expect(reasons()).toEqual([])
  })

  test('of a batch it is the call that is silent, and no other', () => {
    const { run, pass, said, at } = stage({ status: 'waiting_on_tool' })
    run.calls = ['hangs', 'moves'].map((tool_call_id) => {
      return { tool_call_id, movedAt: at(), timeout_ms: null }
    })
    const [, moves] = run.calls
    pass(400, () => {
      if (moves) moves.movedAt = at()
    })
    expect(said).toHaveLength(1)
    expect(said[0]).toMatchObject({ clock: 'tool', tool_call_id: 'hangs' })
  })

  test('a run that moves is stuck only by its turn', () => {
    const moving = stage()
    moving.pass(700, () => (moving.run.movedAt = moving.at()))
    expect(moving.reasons()).toEqual(['turn.timeout(600s)'])
  })

  test('an executor that does not answer is found after 15 s, and forgotten when it answers', () => {
    const { run, pass, reasons } = stage()
    pass(20, () => (run.executorSilentMs += 1_000))
    expect(reasons()).toEqual(['executor.unresponsive(15s)'])
    pass(1, () => (run.executorSilentMs = 10))
    expect(reasons()).toEqual(['executor.unresponsive(15s)', 'stuck.cleared'])
  })

  test('a run that was asked to cancel has no clock but the probe', () => {
    const { run, pass, reasons } = stage({ status: 'cancel_requested' })
    pass(700)
    expect(reasons()).toEqual([])
    pass(16, () => (run.executorSilentMs += 1_000))
    expect(reasons()).toEqual(['executor.unresponsive(15s)'])
  })
})

describe('what was found first is what keeps the run', () => {
  const calm = { stuckClock: null, stuckReason: null, stuckCall: null, stuckSince: null }
  const TURN = 'turn.timeout(600s)'

  test.each([
    ['waiting_on_tool', 'tool_call.timeout(150s)'],
    ['running', 'reasoning.no_progress(30s)'],
  ] as const)('%s: the turn is told of when that has passed', (status, reason) => {
    const { run, pass, reasons, at } = stage({ status })
    pass(700)
    expect(reasons()).toEqual([reason])
    Object.assign(run, calm, { status: 'running', movedAt: at() })
    pass(1)
    expect(reasons()).toEqual([reason, TURN])
  })

  test('of two that are over in the same second it is the one that says why', () => {
    const { pass, reasons } = stage({ status: 'waiting_on_tool', ...ofRun({ turn: '150s' }) })
    pass(151)
    expect(reasons()).toEqual(['tool_call.timeout(150s)'])
  })

  test('a run that has come to the next call is looked at before it makes that', () => {
    const { run, supervisor, pass, reasons, at, sleep, freeze, outside } = stage()
    pass(600, () => (run.movedAt = at()))
    supervisor.lookAt(run)
    expect(reasons()).toEqual([])
    sleep(500)
    supervisor.lookAt(run)
    expect(reasons()).toEqual([TURN])
    supervisor.lookAt(run)
    expect(reasons()).toEqual([TURN])
    const other = stage()
    other.pass(599, () => (other.run.movedAt = other.at()))
    // Nobody has looked for an hour: that was the process, and the next tick forgives it.
    other.sleep(3_600_000)
    other.supervisor.lookAt(other.run)
    other.freeze(0)
    expect(other.reasons()).toEqual([])
    outside.away = true
    Object.assign(run, calm)
    freeze(1_000)
    supervisor.lookAt(run)
    expect(reasons()).toEqual([TURN])
  })
})

describe('limits of its own', () => {
  test('of the run count before those of its agent, and these before the general ones', () => {
    const agent = { reasoning: '5s', turn: '20s' }
    const of = (run: OwnLimits) => {
      const one = stage({ own: { agent, run } })
      one.pass(31)
      return one.reasons()
    }
    expect(of({})).toEqual(['reasoning.no_progress(5s)'])
    expect(of({ reasoning: '10s' })).toEqual(['reasoning.no_progress(10s)'])
    expect(of({ reasoning: '1h' })).toEqual(['turn.timeout(20s)'])
    expect(of({ reasoning: '1h', turn: '1h' })).toEqual([])
  })

  test('of a tool count before those of its agent and after those of the run', () => {
    const foundAfter = (timeout_ms: number | null, run: OwnLimits = {}) => {
      const agent = { tool: '60s', turn: '24d' }
      const one = stage({ status: 'waiting_on_tool', own: { agent, run } })
      one.run.calls = [{ tool_call_id: 'tool_1', movedAt: one.at(), timeout_ms }]
      for (let seconds = 0; seconds < 700; seconds += 1) {
        if (one.said.length > 0) return [seconds, ...one.reasons()]
        one.pass(1)
      }
      return []
    }
    expect(foundAfter(null)).toEqual([61, 'tool_call.timeout(60s)'])
    // It ends by itself when its time is up, and has two seconds to do so.
    expect(foundAfter(10_000)).toEqual([13, 'tool_call.timeout(10s)'])
    expect(foundAfter(600_000)).toEqual([603, 'tool_call.timeout(600s)'])
    expect(foundAfter(600_000, { tool: '20s' })).toEqual([21, 'tool_call.timeout(20s)'])
  })

  test('a turn that was extended has so much longer', () => {
    const { run, pass, reasons } = stage({ turnExtraMs: 60_000 })
    pass(660, () => (run.movedAt += 1_000))
    expect(reasons()).toEqual([])
    pass(1, () => (run.movedAt += 1_000))
    expect(reasons()).toEqual(['turn.timeout(600s)'])
  })
})

describe('auto-termination', () => {
  const half = 30 * 60

  test('is off unless asked for', () => {
    const { pass, reasons } = stage({ ...ofRun({ turn: '24d' }) })
    pass(10 * half)
    expect(reasons()).toEqual(['reasoning.no_progress(30s)'])
  })

  test('ends what is stuck for longer than the limit, and says what it saw', () => {
    const { pass, said } = stage(
      { ...ofRun({ turn: '24d' }) },
      { mode: 'on', afterMs: half * 1_000 },
    )
    pass(31 + half)
    expect(said).toHaveLength(1)
    pass(1)
    expect(said[1]).toMatchObject({
      type: 'run.recycled',
      forced: false,
      by: 'watchdog',
      verdict: {
        result: 'ended',
        clock: 'reasoning',
        tool_call_id: null,
        limit_ms: half * 1_000,
        stuck_ms: 1_801_000,
      },
    })
  })

  test('in shadow tells once what it would do, and does nothing', () => {
    const shadow = { mode: 'shadow', afterMs: half * 1_000 } as const
    const { pass, said } = stage({ ...ofRun({ turn: '24d' }) }, shadow)
    pass(3 * half)
    expect(said.map(({ type }) => type)).toEqual(['stuck.noted', 'verdict.noted'])
  })

  test('of a run with a limit of its own comes when that is over, whatever holds for others', () => {
    const { pass, said } = stage({ override: '60s', ...ofRun({ turn: '24d' }) })
    pass(31 + 60)
    expect(said).toHaveLength(1)
    pass(1)
    expect(said.map(({ type }) => type)).toEqual(['stuck.noted', 'run.recycled'])
  })
})

describe('many runs at once', () => {
  const auto = { mode: 'on', afterMs: 60_000 } as const
  const patient = { agent: {}, run: { turn: '24d', reasoning: '24d', tool: '24d' } }

  /** So many runs that hang in a tool call, and so many that are well, for two minutes. */
  function crowd(hanging: number, well: number, clock: Partial<Watched> = {}) {
    let now = 0
    const made = (count: number, facts: Partial<Watched>) =>
      Array.from({ length: count }, () => stage({ status: 'waiting_on_tool', ...facts }, auto))
    const bad = made(hanging, clock)
    const good = made(well, { status: 'running', own: patient })
    const ended: string[] = []
    const told: (string | null)[] = []
    const watchdog = new Watchdog({
      runs: () => [...bad, ...good].map(({ run }) => run),
      limits: LIMITS,
      autoTerminate: auto,
      isAway: () => false,
      end: async (runId) => ended.push(runId),
      monotonicMs: () => 1_000_000 + now,
      now: () => now,
    })
    const supervisor = ticking(
      watchdog,
      () => 1_000_000 + now,
      (what) => told.push(what),
    )
    for (; now < 215_000; now += 1_000) supervisor.tick()
    const verdicts = bad.flatMap(({ said }) => said.filter(({ type }) => type === 'verdict.noted'))
    return {
      ended,
      told,
      verdicts,
      supervisor,
      recover: (count: number) => {
        for (const { run } of bad.slice(0, count)) run.send({ type: 'stuck.cleared' })
        for (const { run } of bad.slice(0, count)) run.own = patient
        now += 1_000
        supervisor.tick()
      },
    }
  }

  test('60 of 100 are an outage: none is ended, each is told of once, and so is the outage', () => {
    const { ended, told, verdicts, supervisor } = crowd(60, 40)
    expect(ended).toEqual([])
    expect(told).toEqual(['all: 60 of 100 runs, tool: 60 of 60 runs'])
    expect(verdicts).toHaveLength(60)
    expect(verdicts[0]).toMatchObject({ verdict: { result: 'held', action: 'auto_terminate' } })
    expect(supervisor.actor.getSnapshot().hasTag('systemic')).toBe(true)
  })

  test('when most of them are well again, those that are left are ended', () => {
    const { ended, told, supervisor, recover } = crowd(60, 40)
    recover(41)
    expect(ended).toHaveLength(19)
    expect(told.at(-1)).toBeNull()
    expect(supervisor.actor.getSnapshot().hasTag('systemic')).toBe(false)
  })

  test.each([
    ['19, however few there are beside them', 19, 0],
    ['half of them', 20, 20],
  ])('%s are judged one by one', (_what, hanging, well) => {
    // What waits for a tool is a class of its own; these are found by the clock of the turn.
    const own = ofRun({ turn: '150s', tool: '24d' })
    expect(crowd(hanging, well, own).ended.length).toBeGreaterThanOrEqual(hanging)
  })

  test('20 of the 20 that wait for a tool are one tool that is down, whatever the others do', () => {
    expect(crowd(20, 80).ended).toEqual([])
  })
})

describe('nobody is flagged for what is not theirs', () => {
  test('a process that stood still for an hour forgives it', () => {
    const { freeze, pass, reasons } = stage()
    pass(10)
    // One interval of it is an ordinary second.
    freeze(3_600_000)
    pass(19)
    expect(reasons()).toEqual([])
    pass(1)
    expect(reasons()).toEqual(['reasoning.no_progress(30s)'])
  })

  test('while the database is away no clock runs, and nobody is ended for having been stuck', () => {
    const { pass, reasons, outside } = stage({}, { mode: 'on', afterMs: 60_000 })
    pass(31)
    outside.away = true
    pass(3_600)
    outside.away = false
    pass(59)
    expect(reasons()).toEqual(['reasoning.no_progress(30s)'])
    pass(2)
    expect(reasons()).toEqual(['reasoning.no_progress(30s)', 'run.recycled'])
  })

  test('what is found is told once', () => {
    const { pass, reasons } = stage()
    pass(400)
    expect(reasons()).toEqual(['reasoning.no_progress(30s)'])
    pass(400)
    expect(reasons()).toEqual(['reasoning.no_progress(30s)'])
  })
})
