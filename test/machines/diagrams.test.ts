import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { and, not, setup } from 'xstate'
import { toMarkdown } from '../../src/diagrams/document.ts'
import { renderDiagrams } from '../../src/diagrams/files.ts'
import { describeMachine, enclose, transitionLabel } from '../../src/diagrams/graph.ts'
import { toMermaid } from '../../src/diagrams/mermaid.ts'
import { MACHINES } from '../../src/diagrams/registry.ts'
import { toSvg } from '../../src/diagrams/svg.ts'

const graphs = MACHINES.map(({ machine, version }) => describeMachine(machine, version))

test('the committed diagrams are those of the machines', async () => {
  for (const [name, text] of await renderDiagrams()) {
    const committed = await readFile(new URL(`../../machines/${name}`, import.meta.url), 'utf8')
    expect(committed === text, `machines/${name} is stale: npm run diagrams`).toBe(true)
  }
})

describe.each(graphs)('the chart of $id', (graph) => {
  let svg: string
  beforeAll(async () => {
    svg = await toSvg(graph)
  })

  test('draws every state once, a leaf with its status', () => {
    const drawn = [...svg.matchAll(/data-state="([^"]*)"(?: data-status="([^"]*)")?/g)]
    const { states } = enclose(graph)
    const expected = states.map(({ id, name }) =>
      states.some(({ parent }) => parent === id) ? id : `${id} with status ${name}`,
    )
    expect(
      drawn
        .map(([, id = '', status]) => (status === undefined ? id : `${id} with status ${status}`))
        .toSorted(),
    ).toEqual(expected.toSorted())
  })

  test('draws every transition once', () => {
    const drawn = [...svg.matchAll(/data-transition="([^"]*)"/g)].flatMap(([, ids = '']) =>
      ids.split(' '),
    )
    expect(drawn.toSorted()).toEqual(graph.transitions.map(({ id }) => id).toSorted())
  })

  test('fits a screen and is well-formed, the same twice', async () => {
    const [, width] = /viewBox="0 0 (\d+) \d+"/.exec(svg) ?? []
    expect(Number(width)).toBeLessThanOrEqual(1_680)
    expect(faultOf(svg)).toBeNull()
    expect(await toSvg(graph)).toBe(svg)
  })

  test('sets no label upon another', () => {
    const labels = [
      ...svg.matchAll(/"label" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/g),
    ].map(([, x, y, width, height]) => ({
      left: Number(x),
      top: Number(y),
      right: Number(x) + Number(width),
      bottom: Number(y) + Number(height),
    }))
    expect(labels.length).toBeGreaterThan(0)
    const clashes = labels.filter((a, index) =>
      labels
        .slice(index + 1)
        .some((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom),
    )
    expect(clashes).toEqual([])
  })

  test('has every transition in its Mermaid text', () => {
    const written = toMermaid(graph)
      .split('\n')
      .flatMap((line) => line.split(' : ').slice(1))
    const labels = graph.transitions.map((transition) => transitionLabel(graph, transition))
    expect(written.toSorted()).toEqual(labels.toSorted())
  })
})

test('a graph tells kinds, inherited tags, guards and the ways in', () => {
  const graph = describeMachine(hostile, 7)
  expect(graph).toMatchObject({ version: 7, initial: 'end' })
  const state = Object.fromEntries(graph.states.map((each) => [each.id, each]))
  expect(state['state.as']).toMatchObject({ parent: 'state', kind: 'atomic', tags: ['a"b'] })
  expect(state['state']).toMatchObject({ parent: null, kind: 'compound', initial: 'state.as' })
  expect(state['note']?.kind).toBe('parallel')
  expect(state['done']?.kind).toBe('final')
  expect(graph.transitions).toContainEqual({
    id: 'state.as--go[0]',
    source: 'state.as',
    event: 'go',
    guard: 'not (g and h)',
    target: 'state.class',
    actions: [],
  })
})

test('names and descriptions cannot break out of a diagram', async () => {
  const graph = describeMachine(hostile, 1)
  const svg = await toSvg(graph)
  expect(faultOf(svg)).toBeNull()
  expect(svg).not.toContain('<script')
  expect(svg).toContain('&lt;script&gt;')

  const mermaid = toMermaid(graph)
  // Validated by eye with Mermaid 11.17: keywords as ids and `:;"` in labels are what it stumbles over.
  expect(mermaid).toContain(
    'end__ --> state__ : e#60;1#62;#58;#59;#35;x --#62; y [a#60;b#62;#38;#34;]',
  )
  expect(mermaid).toContain('state "#34;evil#34;" as _35__34_evil_34_ {')

  const markdown = toMarkdown([{ graph, file: 'evil.ts', life: 'Short.' }])
  expect(markdown).toContain('\\</title\\>\\<script\\>alert(1)\\</script\\> \\| & "quoted"')
})

const hostile = setup({
  guards: { 'a<b>&"': () => true, g: () => true, h: () => true },
  actions: { "x'y": () => {} },
}).createMachine({
  id: '"evil"',
  initial: 'end',
  on: { tick: { actions: "x'y" }, 'halt;now': '.done' },
  states: {
    end: {
      description: '</title><script>alert(1)</script> | & "quoted"',
      on: {
        'e<1>:;#x --> y': { guard: 'a<b>&"', target: 'state', actions: "x'y" },
        self: 'end',
        '*': 'note',
      },
      after: { 1000: 'note' },
    },
    state: {
      tags: 'a"b',
      initial: 'as',
      states: { as: { on: { go: { guard: not(and(['g', 'h'])), target: 'class' } } }, class: {} },
    },
    note: { type: 'parallel', states: { one: {}, two: {} } },
    done: { type: 'final' },
  },
})

/** What keeps a text from being well-formed XML, as far as our SVGs use XML; `null` if nothing does. */
const faultOf = (xml: string): string | null => {
  const open: string[] = []
  const token =
    /<\/([\w:-]+)>|<([\w:-]+)((?:\s+[\w:-]+="(?:[^<>&"]|&#?\w+;)*")*)\s*(\/?)>|((?:[^<&]|&#?\w+;)+)/y
  let roots = 0
  while (token.lastIndex < xml.length) {
    const at = token.lastIndex
    const [text, closed, opened, attributes = '', empty] = token.exec(xml) ?? []
    if (text === undefined) return `not XML: ${xml.slice(at, at + 60)}`
    if (closed !== undefined && open.pop() !== closed) return `</${closed}> closes nothing`
    if (opened === undefined) continue
    const names = [...attributes.matchAll(/([\w:-]+)="/g)].map(([, name]) => name)
    if (new Set(names).size < names.length) return `an attribute twice: ${text}`
    if (open.length === 0) roots += 1
    if (empty === '') open.push(opened)
  }
  if (roots !== 1) return `${roots} roots`
  return open.length === 0 ? null : `<${open.join('> <')}> is not closed`
}
