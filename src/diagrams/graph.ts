import type { AnyStateMachine, AnyStateNode, AnyTransitionDefinition } from 'xstate'

/** One state of a chart. */
export interface GraphState {
  /** Path from the top of the chart, joined by dots: `active.running`. */
  id: string
  /** Last part of the id; the status, where the state is a leaf. */
  name: string
  parent: string | null
  kind: 'atomic' | 'compound' | 'parallel' | 'final' | 'history'
  /** Id of the child entered by default; only on a compound state. */
  initial?: string
  /** What an actor in this state may be asked for: its own tags and those of its ancestors. */
  tags: string[]
  description: string
  /** Events or commands that move an actor on which waits here. */
  wakers: string[]
  /** Names of the actions of every entry and exit, in their order. */
  entry: string[]
  exit: string[]
}

/** One transition of a chart. */
export interface GraphTransition {
  /** `<source>--<event>[<index>]`, unique in its chart; the index counts within source and event. */
  id: string
  /** Id of a state, or `''` where the whole machine is the source. */
  source: string
  /** `''` for an eventless (`always`) transition. */
  event: string
  guard: string | null
  /** `null` where the transition acts and stays. */
  target: string | null
  actions: string[]
}

/** A chart as plain JSON: states parents first, both lists in the order of the machine's file. */
export interface MachineGraph {
  id: string
  version: number
  /** Id of the state entered first; `''` where the machine itself is parallel. */
  initial: string
  states: GraphState[]
  transitions: GraphTransition[]
}

/**
 * Reads a machine's resolved state nodes, thus what runs, not what was written. Pure.
 *
 * @throws {Error} on a transition with several targets, which nothing here can draw.
 */
export const describeMachine = (machine: AnyStateMachine, version: number): MachineGraph => {
  const nodes = descendants(machine.root)
  return {
    id: machine.id,
    version,
    initial: initialOf(machine.root) ?? '',
    states: nodes.map(describeState),
    transitions: [machine.root, ...nodes].flatMap(describeTransitions),
  }
}

/** Name for readers: `always`, `after 1000`, `done`; an ordinary event is its own name. */
export const eventLabel = (event: string): string => {
  if (event === '') return 'always'
  const [, kind, name] =
    /^xstate\.(after|done|error|snapshot)\.(?:state\.|actor\.)?([^.]*)/.exec(event) ?? []
  if (kind === undefined) return event
  return kind === 'after' ? `after ${name}` : kind
}

/**
 * The guard as a reader needs it: a last, unguarded branch says `else`, otherwise it would read as
 * if it were always taken.
 */
export const guardLabel = (graph: MachineGraph, transition: GraphTransition): string | null => {
  if (transition.guard !== null) return transition.guard
  const first = graph.transitions.find(
    ({ source, event }) => source === transition.source && event === transition.event,
  )
  return first === transition ? null : 'else'
}

/** Event and guard in one line: `run.claimed [isFirstAttempt]`. */
export const transitionLabel = (graph: MachineGraph, transition: GraphTransition): string => {
  const guard = guardLabel(graph, transition)
  return eventLabel(transition.event) + (guard === null ? '' : ` [${guard}]`)
}

/** A default way in: of the machine, or of a compound state that some transition has as its target. */
export interface Entry {
  parent: string | null
  target: string
}

/** The initial states worth drawing: those of compound states that nothing enters are never taken. */
export const entriesOf = (graph: MachineGraph): Entry[] => {
  const entered = new Set([graph.initial, ...graph.transitions.map(({ target }) => target)])
  const entries: Entry[] = []
  for (const { id, parent, initial } of graph.states) {
    const region = graph.states.find((state) => state.id === parent)
    // Parents come first in the list, so what they enter is known by now.
    if (region?.kind === 'parallel' && entered.has(region.id)) entered.add(id)
    if (id === graph.initial) entries.push({ parent, target: id })
    if (initial === undefined || !entered.has(id)) continue
    entered.add(initial)
    entries.push({ parent: id, target: initial })
  }
  return entries
}

/**
 * Where the whole machine has transitions, puts a state named after it around all others, from
 * which they can be drawn; its id begins with '#', XState's mark of an id. Else returns the graph.
 */
export const enclose = (graph: MachineGraph): MachineGraph => {
  if (graph.transitions.every(({ source, target }) => source !== '' && target !== '')) return graph
  const whole: GraphState = {
    id: `#${graph.id}`,
    name: graph.id,
    parent: null,
    kind: 'compound',
    tags: [],
    description: '',
    wakers: [],
    entry: [],
    exit: [],
  }
  return {
    ...graph,
    states: [
      whole,
      ...graph.states.map((state) => ({ ...state, parent: state.parent ?? whole.id })),
    ],
    transitions: graph.transitions.map((transition) => ({
      ...transition,
      source: transition.source === '' ? whole.id : transition.source,
      target: transition.target === '' ? whole.id : transition.target,
    })),
  }
}

const descendants = (node: AnyStateNode): AnyStateNode[] =>
  Object.values(node.states).flatMap((child) => [child, ...descendants(child)])

const idOf = (node: AnyStateNode): string => node.path.join('.')

const initialOf = (node: AnyStateNode): string | undefined => {
  // Typed as always there, absent on everything but a compound state.
  const target = (node.initial as AnyStateNode['initial'] | undefined)?.target?.[0]
  return node.type === 'compound' && target !== undefined ? idOf(target) : undefined
}

const describeState = (node: AnyStateNode): GraphState => {
  const initial = initialOf(node)
  return {
    id: idOf(node),
    name: node.key,
    parent: node.parent?.parent === undefined ? null : idOf(node.parent),
    kind: node.type,
    ...(initial === undefined ? {} : { initial }),
    tags: inheritedTags(node),
    description: node.description ?? '',
    wakers: wakersOf(node.meta),
    entry: node.entry.map(nameOf),
    exit: node.exit.map(nameOf),
  }
}

const inheritedTags = (node: AnyStateNode): string[] => [
  ...new Set([...(node.parent === undefined ? [] : inheritedTags(node.parent)), ...node.tags]),
]

const wakersOf = (meta: unknown): string[] => {
  const wakers = field(meta, 'wakers')
  return Array.isArray(wakers) ? wakers.map(String) : []
}

const describeTransitions = (node: AnyStateNode): GraphTransition[] => {
  const byEvent: [string, readonly AnyTransitionDefinition[]][] = [
    ['', node.always ?? []],
    ...node.transitions,
  ]
  return byEvent.flatMap(([event, definitions]) =>
    definitions.map((definition, index) => {
      const targets = definition.target ?? []
      const id = `${idOf(node)}--${event}[${index}]`
      if (targets.length > 1) throw new Error(`transition ${id} has several targets`)
      return {
        id,
        source: idOf(node),
        event,
        guard: definition.guard === undefined ? null : guardName(definition.guard),
        target: targets[0] === undefined ? null : idOf(targets[0]),
        actions: definition.actions.map(nameOf),
      }
    }),
  )
}

/** XState's `not`, `and` and `or` are functions of that name which carry the guards they combine. */
const guardName = (guard: unknown): string => {
  const guards = field(guard, 'guards')
  if (typeof guard !== 'function' || !Array.isArray(guards)) return nameOf(guard)
  const names = guards.map(guardName).map((name) => (name.includes(' ') ? `(${name})` : name))
  return guard.name === 'not' ? `not ${names.join()}` : names.join(` ${guard.name} `)
}

/** Names and `{ type, params }` name themselves; of a function its own name is left. */
const nameOf = (reference: unknown): string => {
  if (typeof reference === 'string') return reference
  const named = field(reference, 'type') ?? field(reference, 'name')
  return typeof named === 'string' && named !== '' ? named : '(anonymous)'
}

const field = (value: unknown, name: string): unknown =>
  (typeof value === 'object' && value !== null) || typeof value === 'function'
    ? Reflect.get(value, name)
    : undefined
