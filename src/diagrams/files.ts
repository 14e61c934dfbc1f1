import { toMarkdown } from './document.ts'
import { describeMachine } from './graph.ts'
import { toMermaid } from './mermaid.ts'
import { MACHINES } from './registry.ts'
import { toSvg } from './svg.ts'

/** Every generated file of `machines/`: name and text. Takes about a second for each chart. */
export const renderDiagrams = async (): Promise<Map<string, string>> => {
  const chapters = MACHINES.map(({ machine, version, file, life }) => ({
    graph: describeMachine(machine, version),
    file,
    life,
  }))
  const files = new Map<string, string>()
  for (const { graph } of chapters) {
    files.set(`${graph.id}.svg`, await toSvg(graph))
    files.set(`${graph.id}.mmd`, toMermaid(graph))
  }
  return files.set('README.md', toMarkdown(chapters))
}
