import { createMachine } from 'xstate'
import { runMachine, type RunMachine } from '../../machines/run.ts'

/** The chart of a run without one of its transitions. */
export interface Mutant {
  /** As in `describeMachine`: `<source>--<event>[<index>]`. */
  readonly id: string
  readonly machine: RunMachine
}

interface StateConfig {
  always?: unknown
  on?: Record<string, unknown>
  states?: Record<string, StateConfig>
}

/** One mutant for every transition of the chart, in the order of its file. */
export function runMutants(): Mutant[] {
  return places(runMachine.config as StateConfig, []).map(({ id, config }) => {
    const machine = createMachine(config as never).provide(runMachine.implementations as never)
    return { id, machine: machine as unknown as RunMachine }
  })
}

/** What is left of the chart without each transition of this state and those inside. */
function places(state: StateConfig, path: string[]): { id: string; config: StateConfig }[] {
  const source = path.join('.')
  const own = [
    ...without(state.always).map(({ index, rest }) => ({
      id: `${source}--[${index}]`,
      config: { ...state, always: rest },
    })),
    ...Object.entries(state.on ?? {}).flatMap(([event, transitions]) =>
      without(transitions).map(({ index, rest }) => ({
        id: `${source}--${event}[${index}]`,
        config: { ...state, on: { ...state.on, [event]: rest } },
      })),
    ),
  ]
  const inner = Object.entries(state.states ?? {}).flatMap(([name, child]) =>
    places(child, [...path, name]).map(({ id, config }) => ({
      id,
      config: { ...state, states: { ...state.states, [name]: config } },
    })),
  )
  return [...own, ...inner]
}

function without(transitions: unknown): { index: number; rest: unknown[] }[] {
  if (transitions === undefined) return []
  const all: unknown[] = Array.isArray(transitions) ? transitions : [transitions]
  return all.map((_, index) => ({ index, rest: all.filter((_other, at) => at !== index) }))
}
