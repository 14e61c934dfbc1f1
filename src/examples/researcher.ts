/**
 * An agent as code: reads pages beside each other, has a model take notes of each, and writes an answer with its
 * sources. Input: `{ "question": "…", "urls": ["https://…"] }`.
 */
import { type AgentContext, defineAgent, tool, ToolError, z } from 'runlane'

const Input = z.object({
  question: z.string().min(1),
  urls: z
    .array(z.url({ protocol: /^https?$/ }))
    .min(1)
    .max(20),
})
const TEXT_MAX = 20_000

/** The words of a page. */
function textOf(html: string): string {
  return html
    .replaceAll(/<(script|style)\b[\s\S]*?<\/\1>/gi, ' ')
    .replaceAll(/<[^>]*>/g, ' ')
    .replaceAll(/\s+/g, ' ')
    .trim()
}

/** A page that cannot be read is no reason to give up; anything else, such as a cancel, is. */
function toldOrThrown(error: unknown): string {
  if (error instanceof ToolError) return error.message
  throw error
}

async function run(ctx: AgentContext) {
  const { question, urls } = Input.parse(ctx.input)
  await ctx.journal({ objective: question, current_state: `reading ${urls.length} pages` })
  // Each call is recorded by itself. After a crash only what is missing is done again.
  const notes = await Promise.all(
    urls.map(async (url) => {
      const page = await ctx.tool('read_page', { url }).catch(toldOrThrown)
      const content = `Question: ${question}\nPage ${url}:\n${JSON.stringify(page)}`
      const { text } = await ctx.model({
        instructions: 'Note in at most five lines what the page says about the question.',
        messages: [{ role: 'user', content }],
        quiet: true,
      })
      return `${url}\n${text}`
    }),
  )
  await ctx.journal({ current_state: 'writing the answer', findings: notes.join('\n\n') })
  const { text } = await ctx.model({
    messages: [{ role: 'user', content: `Question: ${question}\n\nNotes:\n${notes.join('\n\n')}` }],
  })
  return { answer: text, sources: urls }
}

export default defineAgent({
  name: 'researcher',
  description: 'Answers a question from the pages that it is given.',
  instructions: 'Answer the question from the notes alone. Name the pages that you used.',
  models: ['openai:gpt-5.2'],
  tools: {
    read_page: tool({
      description: 'The text of a web page.',
      input: z.object({ url: z.url() }),
      effects: 'none',
      timeout: '20s',
      async execute({ url }, { signal, progress }) {
        progress(`reading ${url}`)
        const response = await fetch(url, { signal })
        if (!response.ok) throw new Error(`${url} answered ${response.status}`)
        return textOf(await response.text()).slice(0, TEXT_MAX)
      },
    }),
  },
  run,
})
