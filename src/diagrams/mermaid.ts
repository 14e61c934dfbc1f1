import type { GraphState, GraphTransition, MachineGraph } from './graph.ts'
import { enclose, entriesOf, transitionLabel } from './graph.ts'

/**
 * Writes a chart as a Mermaid `stateDiagram-v2`. Transitions without a target are lines of text in
 * their state, the way UML lists what a state does internally.
 */
export const toMermaid = (machine: MachineGraph): string => {
  const graph = enclose(machine)
  const arrows = graph.transitions.flatMap((transition) => arrow(graph, transition))
  return ['stateDiagram-v2', ...indent([...statesIn(graph, null), ...arrows]), ''].join('\n')
}

const statesIn = (graph: MachineGraph, parent: string | null): string[] => [
  ...entriesOf(graph)
    .filter((entry) => entry.parent === parent)
    .map(({ target }) => `[*] --> ${nodeId(target)}`),
  ...graph.states
    .filter((state) => state.parent === parent)
    .flatMap((state) => stateLines(graph, state)),
]

const stateLines = (graph: MachineGraph, state: GraphState): string[] => {
  const id = nodeId(state.id)
  const declared = `state "${plain(state.name)}" as ${id}`
  const stays = graph.transitions
    .filter(({ source, target }) => source === state.id && target === null)
    .map((transition) => plain(transitionLabel(graph, transition)))
  const children = statesIn(graph, state.id)
  if (children.length === 0) {
    const end = state.kind === 'final' ? [`${id} --> [*]`] : []
    return [declared, ...stays.map((stay) => `${id} : ${stay}`), ...end]
  }
  return [
    `${declared} {`,
    ...indent(children),
    '}',
    ...stays.map((stay) => `${id} --> ${id} : ${stay}`),
  ]
}

const arrow = (graph: MachineGraph, transition: GraphTransition): string[] => {
  const { source, target } = transition
  if (target === null) return []
  return [`${nodeId(source)} --> ${nodeId(target)} : ${plain(transitionLabel(graph, transition))}`]
}

const indent = (lines: string[]): string[] => lines.map((line) => `  ${line}`)

/** A word that Mermaid takes for an id. */
const nodeId = (id: string): string => {
  const word = id
    .replaceAll('.', '__')
    .replace(/\W/g, (character) => `_${character.codePointAt(0)}_`)
  return KEYWORDS.has(word.toLowerCase()) ? `${word}__` : word
}

const KEYWORDS = new Set(
  'as class classdef click default direction end hide note scale state style'.split(' '),
)

/** Mermaid has no quoting in labels; `#59;` is its entity for a character it would read as syntax. */
const plain = (text: string): string =>
  text.replace(/[^\w .[\]()/,↻-]/gu, (character) => `#${character.codePointAt(0)};`)
