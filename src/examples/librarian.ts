/** A model with the tools of an MCP server: a memory of things and how they belong together, kept in a file. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { defineAgent } from 'runlane'

export default defineAgent({
  name: 'librarian',
  description: 'Remembers what it is told, across conversations.',
  instructions:
    'You keep a memory of people, things and their relations. Use it before you answer.',
  models: ['openai:gpt-5.2'],
  mcp: [
    {
      command: 'npx',
      args: ['--yes', '@modelcontextprotocol/server-memory'],
      // A place that lasts is for you to choose.
      env: { MEMORY_FILE_PATH: join(tmpdir(), 'runlane-memory.jsonl') },
      prefix: 'memory',
    },
  ],
})
