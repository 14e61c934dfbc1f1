/** The work of the benchmark as code: the same three steps that the scripted agent does without a thread. */
import { defineAgent } from 'runlane'

const result = { ok: 1, text: 'z'.repeat(180) }

export default defineAgent({
  name: 'steps',
  async run(ctx) {
    const results = []
    for (const name of ['a', 'b', 'c']) results.push(await ctx.step(name, () => result))
    return { results }
  },
})
