import type { GraphState, GraphTransition, MachineGraph } from './graph.ts'
import { transitionLabel } from './graph.ts'

/** Font sizes and spaces in px; `svg.ts` draws with them what is measured with them here. */
export const METRICS = {
  title: 14,
  text: 11.5,
  label: 11.5,
  /** From one line of small text to the next. */
  line: 15,
  pad: 12,
  /** Between the groups of lines in a box. */
  gap: 5,
  dot: 12,
} as const

/** A transition as text. */
export interface Line {
  transition: GraphTransition
  text: string
  /** The same, with the guard in a row of its own. */
  rows: string[]
}

/** What a state shows, and the room it takes as a leaf. */
export interface StateBox {
  state: GraphState
  /** The description, wrapped. */
  description: string[]
  /** Transitions without a target are listed in the box. */
  stays: Line[]
  width: number
  height: number
}

/** Transitions of one source and target: one arrow with several lines of text. */
export interface Edge {
  id: string
  source: string
  target: string
  lines: Line[]
  label: { width: number; height: number }
}

/** Measures each state of a graph, in its order. */
export const measureStates = (graph: MachineGraph): StateBox[] => {
  const parents = new Set(graph.states.map(({ parent }) => parent))
  return graph.states.map((state) => {
    const stays = graph.transitions
      .filter(({ source, target }) => source === state.id && target === null)
      .map((transition) => lineOf(graph, transition))
    const inner = Math.max(
      MIN_INNER_WIDTH,
      textWidth(state.name, METRICS.title, 'title'),
      ...state.description.split(/\s+/).map((word) => textWidth(word, METRICS.text, 'text')),
      ...stays.map(({ text }) => textWidth(`↻ ${text}`, METRICS.label, 'mono')),
    )
    // A container is wide enough for its description in one line.
    const room = parents.has(state.id) ? Infinity : inner
    const description = wrap(state.description, room)
    return {
      state,
      description,
      stays,
      width: Math.ceil(inner + 2 * METRICS.pad),
      height: Math.ceil(2 * METRICS.pad + contentHeight(description.length, stays.length)),
    }
  })
}

/** Height of a title and the lines below it, without padding. */
export const contentHeight = (descriptions: number, stays: number): number =>
  METRICS.title +
  (descriptions > 0 ? METRICS.gap - 3 + descriptions * METRICS.line : 0) +
  (stays > 0 ? 2 * METRICS.gap + stays * METRICS.line : 0)

/** Gathers the transitions with a target into edges, in the order of the first of each. */
export const mergeEdges = (graph: MachineGraph): Edge[] => {
  const merged = new Map<string, { source: string; target: string; lines: Line[] }>()
  for (const transition of graph.transitions) {
    const { source, target } = transition
    if (target === null) continue
    const key = JSON.stringify([source, target])
    const edge = merged.get(key) ?? { source, target, lines: [] }
    edge.lines.push(lineOf(graph, transition))
    merged.set(key, edge)
  }
  return [...merged.values()].map((edge, index) => {
    const rows = edge.lines.flatMap((line) => line.rows)
    const width = Math.max(...rows.map((row) => textWidth(row, METRICS.label, 'mono')))
    const label = { width: Math.ceil(width + 12), height: rows.length * METRICS.line + 4 }
    return { id: `#edge-${index}`, ...edge, label }
  })
}

const MIN_INNER_WIDTH = 160

/** Mean advance in em, generous for every system font: text set narrower only leaves more air. */
const ADVANCE = { title: 0.62, text: 0.56, mono: 0.61 } as const

const textWidth = (text: string, size: number, face: keyof typeof ADVANCE): number =>
  text.length * size * ADVANCE[face]

const lineOf = (graph: MachineGraph, transition: GraphTransition): Line => {
  const text = transitionLabel(graph, transition)
  return { transition, text, rows: text.split(/ (?=\[)/) }
}

const wrap = (text: string, width: number): string[] => {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const longer = line === '' ? word : `${line} ${word}`
    const fits = line === '' || textWidth(longer, METRICS.text, 'text') <= width
    if (!fits) lines.push(line)
    line = fits ? longer : word
  }
  return line === '' ? lines : [...lines, line]
}
