/**
 * Reads Prometheus' text format, version 0.0.4, and throws at whatever is not as its specification has it: families in one
 * piece, each with one HELP and one TYPE before its samples, names that fit the type, labels quoted and in no order twice, no
 * series twice, buckets that grow up to `+Inf`, which is the count.
 */
export const parseExposition = (text: string): Map<string, Family> => {
  if (!text.endsWith('\n')) throw new Error('the last line does not end')
  const families = new Map<string, Family>()
  let current: Family | undefined
  const open = (name: string): Family => {
    if (current?.name === name) return current
    if (families.has(name)) throw new Error(`${name} is in two pieces`)
    current = { name, type: undefined, help: undefined, samples: [] }
    families.set(name, current)
    return current
  }
  for (const line of text.split('\n')) {
    if (line === '') continue
    const [, keyword, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (keyword !== undefined) describe(open(name), keyword, rest)
    else if (line.startsWith('# UNIT ')) open(line.split(' ')[2] ?? '')
    else if (line.startsWith('#')) throw new Error(`a comment of no kind: ${line}`)
    else take(current, sampleOf(line))
  }
  for (const family of families.values()) check(family)
  return families
}

export type Family = {
  readonly name: string
  type: string | undefined
  help: string | undefined
  readonly samples: Sample[]
}

export type Sample = {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** The value of a series; undefined: it is not there. */
export const valueOf = (
  families: Map<string, Family>,
  name: string,
  labels: Record<string, string> = {},
): number | undefined => {
  const base = families.get(name) ?? families.get(name.replace(/_(count|sum|bucket)$/, ''))
  const wanted = keyOf({ name, labels })
  return base?.samples.find((sample) => keyOf(sample) === wanted)?.value
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const TYPES = ['counter', 'gauge', 'histogram']
const NUMBER = /^([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]Inf|NaN)$/i

const describe = (family: Family, keyword: string, rest: string): void => {
  if (!NAME.test(family.name)) throw new Error(`no name of a metric: ${family.name}`)
  if (family.samples.length > 0) throw new Error(`${keyword} after samples of ${family.name}`)
  if (keyword === 'HELP') {
    if (family.help !== undefined || rest.trim() === '') throw new Error(`HELP of ${family.name}`)
    family.help = rest
    return
  }
  if (family.type !== undefined || !TYPES.includes(rest)) throw new Error(`TYPE of ${family.name}`)
  family.type = rest
}

const take = (family: Family | undefined, sample: Sample): void => {
  if (!family?.type) throw new Error(`${sample.name} before its TYPE`)
  const suffix = sample.name.slice(family.name.length)
  const fits = family.type === 'histogram' ? ['_bucket', '_sum', '_count'] : ['']
  if (!sample.name.startsWith(family.name) || !fits.includes(suffix))
    throw new Error(`${sample.name} is none of the ${family.type} ${family.name}`)
  if (family.samples.some((other) => keyOf(other) === keyOf(sample)))
    throw new Error(`twice: ${keyOf(sample)}`)
  family.samples.push(sample)
}

const sampleOf = (line: string): Sample => {
  const [, name, , inner = '', number = ''] = /^([^\s{]+)(\{(.*)\})? (\S+)$/.exec(line) ?? []
  if (name === undefined || !NAME.test(name)) throw new Error(`no sample: ${line}`)
  if (!NUMBER.test(number)) throw new Error(`no number: ${line}`)
  return { name, labels: labelsOf(inner, line), value: Number(number.replace('Inf', 'Infinity')) }
}

const labelsOf = (inner: string, line: string): Record<string, string> => {
  const labels: Record<string, string> = {}
  const pair = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,(?=.)|$)/y
  while (pair.lastIndex < inner.length) {
    const [whole, label = '', value = ''] = pair.exec(inner) ?? []
    if (whole === undefined || label in labels) throw new Error(`labels: ${line}`)
    labels[label] = value.replaceAll(/\\(.)/g, (_all, one: string) => (one === 'n' ? '\n' : one))
  }
  return labels
}

const check = (family: Family): void => {
  const { name, type, help, samples } = family
  if (help === undefined || type === undefined) throw new Error(`${name} is not described`)
  if (type === 'counter' && !name.endsWith('_total')) throw new Error(`a counter: ${name}`)
  if (type === 'counter' && samples.some(({ value }) => !(value >= 0)))
    throw new Error(`${name} is below zero`)
  if (type === 'histogram') checkHistogram(family)
}

const checkHistogram = ({ name, samples }: Family): void => {
  const series = Map.groupBy(samples, ({ labels: { le: _le, ...labels } }) =>
    keyOf({ name, labels }),
  )
  for (const [key, of] of series) {
    const buckets = of.filter((sample) => sample.name.endsWith('_bucket'))
    const bounds = buckets.map(({ labels }) => Number(labels['le']?.replace('Inf', 'Infinity')))
    const values = buckets.map(({ value }) => value)
    const grows = (numbers: number[]): boolean =>
      numbers.every((one, nth) => nth === 0 || one >= (numbers[nth - 1] ?? 0))
    const isWhole = of.length === buckets.length + 2 && bounds.at(-1) === Infinity
    const count = of.find((sample) => sample.name.endsWith('_count'))?.value
    if (!isWhole || !grows(bounds) || !grows(values) || values.at(-1) !== count)
      throw new Error(`buckets of ${key}`)
  }
}

const keyOf = ({ name, labels }: Pick<Sample, 'name' | 'labels'>): string =>
  JSON.stringify([name, Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1))])
