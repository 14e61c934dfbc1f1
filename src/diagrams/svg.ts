import type { MachineGraph } from './graph.ts'
import { enclose } from './graph.ts'
import type { Box, Layout, PlacedEdge, PlacedState, Point } from './layout.ts'
import { layOut } from './layout.ts'
import type { Line } from './measure.ts'
import { METRICS } from './measure.ts'
import { CHART_STYLE } from './style.ts'

/**
 * Draws a chart as one SVG document, which a page may also inline. The same graph gives the same
 * bytes.
 *
 * Each state is `<g data-state="…">`, a leaf with its `data-status`; each transition is in the list
 * of ids of one `<g data-transition="…">`. Light one by setting `data-lit` on the group.
 */
export const toSvg = async (graph: MachineGraph): Promise<string> => {
  const layout = await layOut(enclose(graph))
  const width = Math.ceil(layout.width)
  const height = Math.ceil(layout.height)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="statechart" role="img" ${attributes({
      'aria-label': `Statechart of ${graph.id}, version ${graph.version}`,
      'data-machine': graph.id,
      'data-version': String(graph.version),
      viewBox: `0 0 ${width} ${height}`,
      width: String(width),
      height: String(height),
    })}>`,
    `<style>${CHART_STYLE}</style>`,
    `<rect class="canvas" width="${width}" height="${height}"/>`,
    ...draw(layout),
    '</svg>',
    '',
  ].join('\n')
}

/** Lines lie under the titles of containers, which they may cross, and end under the leaves. */
const draw = ({ states, edges, dots }: Layout): string[] => [
  ...edges.map(drawEdge),
  ...dots.map(drawDot),
  ...states.filter(({ container }) => container).map(drawState),
  ...states.filter(({ container }) => !container).map(drawState),
]

const drawState = (placed: PlacedState): string => {
  const { state, container, stays, x } = placed
  const left = x + METRICS.pad
  let base = placed.y + METRICS.pad + METRICS.title - 2
  const parts = [
    `<title>${escape(state.description || state.id)}</title>`,
    rect('box', placed, container ? 12 : 8),
    ...(state.kind === 'final' ? [rect('rim', inset(placed, 3), 6)] : []),
    text('name', left, base, escape(state.name)),
  ]
  base += METRICS.gap - 3
  for (const line of placed.description) {
    base += METRICS.line
    parts.push(text('description', left, base, escape(line)))
  }
  if (stays.length > 0) parts.push(rule(placed, base + 2 * METRICS.gap - 1))
  base += 2 * METRICS.gap
  for (const stay of stays) {
    base += METRICS.line
    parts.push(drawStay(stay, left, base))
  }
  const tags = state.tags.map((tag) => `tag-${tag}`)
  return group(
    {
      'data-state': state.id,
      ...(container ? {} : { 'data-status': state.name }),
      class: ['state', container ? 'compound' : state.kind, ...tags].join(' '),
    },
    parts,
  )
}

const drawStay = (stay: Line, x: number, y: number): string =>
  group({ 'data-transition': stay.transition.id, class: 'transition stay' }, [
    `<title>${escape(tooltip([stay]))}</title>`,
    text('event', x, y, `<tspan class="guard">↻</tspan> ${eventText(stay.text)}`),
  ])

const drawDot = ({ x, y, width }: Box): string => {
  const radius = width / 2
  return `<circle class="dot" cx="${round(x + radius)}" cy="${round(y + radius)}" r="${radius}"/>`
}

const drawEdge = ({ lines, paths, label }: PlacedEdge): string => {
  const shapes = paths.flatMap((points) => [
    `<path class="path" d="${roundedPath(points)}"/>`,
    `<path class="arrow" d="${arrowHead(points)}"/>`,
  ])
  if (label === null) return group({ class: 'transition' }, shapes)
  return group(
    {
      'data-transition': lines.map(({ transition }) => transition.id).join(' '),
      class: 'transition',
    },
    [`<title>${escape(tooltip(lines))}</title>`, ...shapes, ...drawLabel(lines, label)],
  )
}

/** The label sits on its line, so that no reader has to guess which one it belongs to. */
const drawLabel = (lines: Line[], label: Box): string[] => [
  rect('label', label, 4),
  ...lines
    .flatMap(({ rows }) => rows)
    .map((row, index) =>
      text(
        row.startsWith('[') ? 'event guard' : 'event',
        label.x + label.width / 2,
        label.y + METRICS.line * (index + 1) - 2,
        escape(row),
      ),
    ),
]

/** What the picture leaves out: the actions. */
const tooltip = (lines: Line[]): string =>
  lines
    .map(({ text: label, transition }) =>
      transition.actions.length === 0 ? label : `${label} / ${transition.actions.join(', ')}`,
    )
    .join('\n')

const eventText = (label: string): string =>
  escape(label).replace(/ (\[.*\])$/, ' <tspan class="guard">$1</tspan>')

const CORNER = 6

const towards = (from: Point, to: Point, distance: number): Point => {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1
  const share = Math.min(distance, length / 2) / length
  return { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share }
}

const roundedPath = (points: Point[]): string =>
  points
    .map((point, index) => {
      const before = points[index - 1]
      const after = points[index + 1]
      if (before === undefined) return `M${at(point)}`
      if (after === undefined) return `L${at(point)}`
      return `L${at(towards(point, before, CORNER))} Q${at(point)} ${at(towards(point, after, CORNER))}`
    })
    .join(' ')

const arrowHead = (points: Point[]): string => {
  const [from, tip] = points.slice(-2)
  if (from === undefined || tip === undefined) return ''
  const length = Math.hypot(tip.x - from.x, tip.y - from.y) || 1
  const [dx, dy] = [(tip.x - from.x) / length, (tip.y - from.y) / length]
  const corner = (side: number): Point => ({
    x: tip.x - 9 * dx - side * 4 * dy,
    y: tip.y - 9 * dy + side * 4 * dx,
  })
  return `M${at(tip)} L${at(corner(1))} L${at(corner(-1))} Z`
}

const inset = ({ x, y, width, height }: Box, by: number): Box => ({
  x: x + by,
  y: y + by,
  width: width - 2 * by,
  height: height - 2 * by,
})

const rect = (name: string, { x, y, width, height }: Box, radius: number): string =>
  `<rect class="${name}" x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" rx="${radius}"/>`

const rule = ({ x, width }: Box, y: number): string =>
  `<path class="rule" d="M${round(x + METRICS.pad)} ${round(y)} H${round(x + width - METRICS.pad)}"/>`

const text = (name: string, x: number, y: number, content: string): string =>
  `<text class="${name}" x="${round(x)}" y="${round(y)}">${content}</text>`

const group = (given: Record<string, string>, parts: string[]): string =>
  [`<g ${attributes(given)}>`, ...parts.map((part) => part.replace(/^/gm, '  ')), '</g>'].join('\n')

const attributes = (given: Record<string, string>): string =>
  Object.entries(given)
    .map(([name, value]) => `${name}="${escape(value)}"`)
    .join(' ')

const round = (value: number): number => Math.round(value * 10) / 10

const at = ({ x, y }: Point): string => `${round(x)} ${round(y)}`

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

const escape = (value: string): string =>
  value.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
