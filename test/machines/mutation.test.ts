import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { runMachine, type RunMachine } from '../../machines/run.ts'
import { runMutants } from '../support/chart-mutants.ts'
import { templateDatabase, worldOf } from '../support/in-process.ts'
import { SCENARIO_AGENTS } from '../support/scenario-agents.ts'
import { type Scenario, stageOf } from '../support/scenario.ts'
import { SCENARIOS } from '../support/scenarios.ts'

const PATIENCE_MS = 20_000
/** What never happens is given up after this long. */
const IMPATIENCE_MS = 5_000

const admin = inject('databaseUrl')
let template: { name: string; drop(): Promise<void> }
beforeAll(async () => {
  template = await templateDatabase(admin)
})
afterAll(() => template.drop())

/** @throws what the scenario throws. */
async function playOn(machine: RunMachine, scenario: Scenario, deadlineMs: number): Promise<void> {
  const agents = SCENARIO_AGENTS
  const world = await worldOf(admin, template.name, { machine, agents, ...scenario.alone })
  try {
    const replica = await world.start()
    await scenario.play(stageOf(world.start, replica, deadlineMs))
  } finally {
    await world.close()
  }
}

const failureOn = async (machine: RunMachine, scenario: Scenario): Promise<string | undefined> => {
  try {
    await playOn(machine, scenario, IMPATIENCE_MS)
    return undefined
  } catch (error) {
    return `${scenario.name}: ${error instanceof Error ? error.message : String(error)}`
  }
}

describe('over HTTP', () => {
  test.concurrent.each(SCENARIOS.map((scenario) => [scenario.name, scenario] as const))(
    '%s',
    { timeout: 60_000 },
    (_name, scenario) => playOn(runMachine, scenario, PATIENCE_MS),
  )
})

test('scenarios name only transitions that the chart has', () => {
  const known = runMutants().map(({ id }) => id)
  const unknown = SCENARIOS.flatMap(({ needs }) => needs).filter((id) => !known.includes(id))
  expect(unknown).toEqual([])
})

describe('without one transition of the chart a scenario over HTTP fails', () => {
  test.concurrent.each(runMutants().map(({ id, machine }) => [id, machine] as const))(
    '%s',
    { timeout: 120_000 },
    async (id, machine) => {
      const likely = SCENARIOS.filter(({ needs }) => needs.includes(id))
      expect(likely.length, `no scenario says that it needs ${id}`).toBeGreaterThan(0)
      const others = SCENARIOS.filter((scenario) => !likely.includes(scenario))
      let failure: string | undefined
      for (const scenario of [...likely, ...others]) {
        failure ??= await failureOn(machine, scenario)
        if (failure !== undefined) break
      }
      expect(failure, `${id} can be deleted and no scenario notices`).toBeDefined()
    },
  )
})
