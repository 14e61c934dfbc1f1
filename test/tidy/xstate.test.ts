import { expect, test, vi } from 'vitest'
import { createActor, createMachine } from 'xstate'

test('tests run on the development build of XState, which warns about misuse', () => {
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => {})
  const actor = createActor(createMachine({})).start()
  actor.stop()
  actor.send({ type: 'too.late' })
  expect(warn).toHaveBeenCalledWith(expect.stringContaining('stopped actor'))
  warn.mockRestore()
})
