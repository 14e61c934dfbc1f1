import { describe, expect, test } from 'vitest'
import { type AgentSpec, defineAgent, DefinitionError, tool, z } from '../../src/index.ts'

const scope = {
  signal: new AbortController().signal,
  idempotencyKey: 'key',
  toolCallId: 'call',
  progress: () => {},
}
const echo = tool({ input: z.unknown(), execute: (input) => input })
const run = async () => null

/** As a module that nobody has type-checked would call it. */
const refusalOf = (define: () => unknown): string => {
  try {
    define()
  } catch (error) {
    expect(error).toBeInstanceOf(DefinitionError)
    return (error as Error).message
  }
  return 'accepted'
}

describe('an agent', () => {
  const refusal = (spec: unknown): string => refusalOf(() => defineAgent(spec as AgentSpec))

  test('is what it was defined as, with the defaults', () => {
    expect(defineAgent({ name: 'plain', run })).toMatchObject({
      name: 'plain',
      loops: false,
      isolation: 'shared',
      hold_lane_on_human: false,
      timeouts: {},
      delegates: [],
    })
    expect(defineAgent({ name: 'loop', models: ['openai:gpt-test'] }).loops).toBe(true)
  })

  test('keeps `this` in its run function', async () => {
    const agent = defineAgent({
      name: 'self',
      async run() {
        return this.name
      },
    })
    const { run: taken } = agent
    expect(await taken({} as never)).toBe('self')
  })

  test.each([
    [{ name: 'x y' }, 'agent x y: name must be 1 to 100 letters, digits, _ - or .'],
    [{ name: '' }, 'agent : name must be 1 to 100 letters, digits, _ - or .'],
    [{ name: '-x' }, 'agent -x: name must be 1 to 100 letters, digits, _ - or .'],
    [{ name: 'scripted:x' }, 'agent scripted:x: name must be 1 to 100 letters'],
    [{ name: 'x'.repeat(101) }, 'name must be 1 to 100 letters'],
    [{ name: undefined }, 'an agent: name is required'],
    [{ name: 'scripted' }, 'agent scripted: the name belongs to a built-in agent'],
    [{ name: 'assistant' }, 'agent assistant: the name belongs to a built-in agent'],
    [{ description: 7 }, 'agent a: description must be a string, not a number'],
    [{ instructions: 7 }, 'agent a: instructions must be a string, not a number'],
    [
      { instrutions: 'x' },
      'agent a: instrutions is an unknown field, did you mean "instructions"?',
    ],
    [{ models: ['gpt-5'] }, 'agent a: models[0] must be provider:model, such as openai:gpt-5.2'],
    [{ models: 'openai:x' }, 'agent a: models must be an array, not a string'],
    [{ tools: { x: { execute: run } } }, 'agent a: tools.x must be made with tool()'],
    [
      { tools: { 'x y': echo } },
      'agent a: tools.x y must be named with 1 to 64 letters, digits, _ or -',
    ],
    [{ mcp: [{}] }, 'agent a: mcp[0] needs either url or command'],
    [{ mcp: [{ url: 'http://a', command: 'b' }] }, 'agent a: mcp[0] needs either url or command'],
    [{ mcp: [{ url: 'ftp://a' }] }, 'agent a: mcp[0].url must be an http or https URL'],
    [{ mcp: [{ command: 'b', prefix: 'x y' }] }, 'agent a: mcp[0].prefix must be 1 to 64 letters'],
    [
      { mcp: [{ command: 'b', timout: '1s' }] },
      'agent a: mcp[0].timout is an unknown field, did you mean "timeout"?',
    ],
    [{ delegates: 'x' }, 'agent a: delegates must be an array, not a string'],
    [{ timeouts: { tool: 5 } }, 'agent a: timeouts.tool must be a string, not a number'],
    [{ timeouts: { tool: '5' } }, 'agent a: timeouts.tool needs a unit'],
    [{ timeouts: { tools: '5s' } }, 'agent a: timeouts.tools is an unknown field'],
    [{ max_turns: 0 }, 'agent a: max_turns must be at least 1'],
    [{ isolation: 'process' }, 'agent a: isolation must be "shared" or "thread"'],
    [
      { hold_lane_on_human: 'yes' },
      'agent a: hold_lane_on_human must be true or false, not a string',
    ],
    [{ run: 'x' }, 'agent a: run must be a function'],
    [{ run: undefined }, 'agent a: needs models, or a run function'],
    [{ run: undefined, models: [] }, 'agent a: needs models, or a run function'],
  ])('is refused with the name of what does not fit: %j', (change, message) => {
    expect(refusal({ name: 'a', run, ...change })).toContain(message)
  })

  test.each([
    [undefined, 'is required'],
    [null, 'must be an object, not null'],
    ['x', 'must be an object, not a string'],
    [7, 'must be an object, not a number'],
  ])('is no %j', (spec, message) => {
    expect(refusal(spec)).toContain(`an agent: ${message}`)
  })

  test('of the built-in loop cannot take the names of its tools', () => {
    const refused = refusal({ name: 'a', models: ['x:y'], tools: { update_journal: echo } })
    expect(refused).toBe("agent a: tools.update_journal is a name of the built-in loop's own tools")
    expect(defineAgent({ name: 'a', run, tools: { update_journal: echo } }).loops).toBe(false)
  })
})

describe('a tool', () => {
  const input = z.object({ q: z.string() })
  const refusal = (spec: object): string =>
    refusalOf(() => tool({ input, execute: () => null, description: 'Looks.', ...spec }))

  test('is unsafe, without time-out, unless it says otherwise', () => {
    const plain = tool({ input, execute: () => null })
    expect(plain.effects).toBe('unsafe')
    expect(plain.timeout_ms).toBeUndefined()
    const said = tool({ input, effects: 'none', timeout: '90s', execute: () => null })
    expect([said.effects, said.timeout_ms]).toEqual(['none', 90_000])
  })

  test('is shown to models by the JSON Schema of what they have to give', () => {
    const made = tool({ input: z.object({ n: z.string().transform(Number) }), execute: () => null })
    expect(made.input_schema).toMatchObject({
      type: 'object',
      properties: { n: { type: 'string' } },
      required: ['n'],
    })
  })

  test.each([
    [
      { needs_approval: true },
      'needs_approval is not supported by this version: nobody would be asked',
    ],
    [{ effects: 'some' }, 'effects must be none, idempotent or unsafe'],
    [{ timeout: '5' }, 'timeout needs a unit: ms, s, m, h or d, such as "30s"'],
    [{ timeout: '0s' }, 'timeout must be longer than zero'],
    [{ timeout: 5 }, 'timeout must be a string, not a number'],
    [{ execute: undefined }, 'execute must be a function'],
    [{ inputs: input }, 'inputs is an unknown field, did you mean "input"?'],
    [{ input: undefined }, "input must be a zod schema (z of 'runlane')"],
    [{ input: { type: 'object' } }, "input must be a zod schema (z of 'runlane')"],
    [{ input: z.bigint() }, 'input cannot be shown as JSON Schema: '],
  ])('is refused with the name of what does not fit: %j', (change, message) => {
    expect(refusal(change)).toContain(`a tool (Looks.): ${message}`)
  })

  test('that says it needs no approval is fine', () => {
    expect(refusal({ needs_approval: false })).toBe('accepted')
  })

  test('gets its input checked, changed and with the scope; what does not fit never reaches it', async () => {
    const seen: unknown[] = []
    const made = tool({
      input: z.object({ n: z.string().transform(Number), unit: z.string().default('m') }),
      execute: (given, { idempotencyKey }) => seen.push([given, idempotencyKey]),
    })
    await made.execute({ n: '7' } as never, scope)
    expect(seen).toEqual([[{ n: 7, unit: 'm' }, 'key']])
    await expect((async () => made.execute({ n: 7 } as never, scope))()).rejects.toThrow(
      'invalid input: n: Invalid input: expected string, received number',
    )
    expect(seen).toHaveLength(1)
  })

  test('may have a schema that asks somebody', async () => {
    const made = tool({
      input: z.string().refine(async (name) => Promise.resolve(name === 'known'), 'is not known'),
      execute: (name) => name,
    })
    expect(await made.execute('known' as never, scope)).toBe('known')
    await expect((async () => made.execute('other' as never, scope))()).rejects.toThrow(
      'invalid input: is not known',
    )
  })
})
