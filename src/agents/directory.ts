import { assistantCard } from './assistant.ts'
import { isScripted } from './script.ts'
import type { AgentCard } from './source.ts'

/** An agent module that cannot be used, and why. */
export interface ModuleProblem {
  file: string
  message: string
}

export interface AgentDirectoryOptions {
  scripted: AgentCard
  environment: Readonly<Record<string, string | undefined>>
  /** Agents that are declared over HTTP live in the database: asked for each time, so that every node knows the same. */
  findDeclared(name: string): Promise<Declared | undefined>
  listDeclared(): Promise<Declared[]>
}

/** A declared agent, or why this version cannot use it: a later one has written it. */
export type Declared = { card: AgentCard } | { name: string; problem: string }

/** Which agents there are: built in, code of this node, declared for all nodes. In case of doubt in that order. */
export class AgentDirectory {
  #options: AgentDirectoryOptions
  #builtIn: Map<string, AgentCard>
  #code = new Map<string, AgentCard>()
  #problems: ModuleProblem[] = []

  constructor(options: AgentDirectoryOptions) {
    this.#options = options
    const assistant = assistantCard(options.environment)
    const builtIn = assistant ? [options.scripted, assistant] : [options.scripted]
    this.#builtIn = new Map(builtIn.map((card) => [card.name, card]))
  }

  get problems(): readonly ModuleProblem[] {
    return this.#problems
  }

  /** Declared agents that this version cannot use. */
  async declaredProblems(): Promise<{ name: string; message: string }[]> {
    return (await this.#options.listDeclared()).flatMap((one) =>
      'problem' in one ? [{ name: one.name, message: one.problem }] : [],
    )
  }

  /** Takes what the modules of the folder hold now, instead of what they held before. */
  setCode(cards: AgentCard[], problems: ModuleProblem[]): void {
    this.#code = new Map(cards.map((card) => [card.name, card]))
    this.#problems = problems
  }

  /** Answers at once for what needs no database; `scripted:<anything>` is the scripted agent under another name. */
  findLocal(name: string): AgentCard | undefined {
    const known = this.#builtIn.get(name) ?? this.#code.get(name)
    if (known || !isScripted(name)) return known
    return { ...this.#options.scripted, name }
  }

  async find(name: string): Promise<AgentCard | undefined> {
    const local = this.findLocal(name)
    if (local) return local
    const declared = await this.#options.findDeclared(name)
    return declared && 'card' in declared ? declared.card : undefined
  }

  /** By name. */
  async list(): Promise<AgentCard[]> {
    const local = [...this.#builtIn.values(), ...this.#code.values()]
    const taken = new Set(local.map((card) => card.name))
    const declared = (await this.#options.listDeclared())
      .flatMap((one) => ('card' in one ? [one.card] : []))
      .filter((card) => !taken.has(card.name))
    return [...local, ...declared].toSorted((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** Why there is no agent of this name, for whoever asked for it. */
  async whyUnknown(name: string): Promise<string> {
    const broken = this.#problems.find(({ file }) => stem(file) === name)
    if (broken) return `is in ${base(broken.file)}, which cannot be used: ${broken.message}`
    const declared = await this.#options.findDeclared(name)
    if (declared && 'problem' in declared) return `cannot be used: ${declared.problem}`
    if (name === 'assistant')
      return 'needs OPENAI_API_KEY, OPENAI_BASE_URL or ANTHROPIC_API_KEY to be set'
    const names = (await this.list()).map((card) => card.name)
    const more = names.length > NAMED_MAX ? ` and ${names.length - NAMED_MAX} more` : ''
    return `is none of ${names.slice(0, NAMED_MAX).join(', ')}${more}`
  }
}

const NAMED_MAX = 20
const base = (file: string): string => file.split(/[\\/]/).at(-1) ?? file
const stem = (file: string): string => base(file).replace(/\.[a-z]+$/, '')
