import { createMessageAssembler } from 'runlane/client'
import { expect, test } from 'vitest'
import { seeded } from '../support/random.ts'

const delta = (message_id: string, offset: number, text: string) => ({
  event_type: 'message_delta',
  payload: { message_id, offset, text },
})

test('deltas make the text, each message its own', () => {
  const assembler = createMessageAssembler()
  expect(assembler.add(delta('a', 0, 'Hel'))).toEqual({ messageId: 'a', from: 0, text: 'Hel' })
  assembler.add(delta('b', 0, 'Other'))
  expect(assembler.add(delta('a', 3, 'lo 😀'))).toMatchObject({ text: 'Hello 😀' })
  expect([...assembler.messages.values()].map(({ text }) => text)).toEqual(['Hello 😀', 'Other'])
})

test('a model that starts over takes back what it had said from there', () => {
  const assembler = createMessageAssembler()
  for (const one of [delta('a', 0, 'The answer is'), delta('a', 13, ' 41')]) assembler.add(one)
  expect(assembler.add(delta('a', 14, '42'))).toMatchObject({ text: 'The answer is 42' })
  expect(assembler.add(delta('a', 0, 'No'))).toMatchObject({ from: 0, text: 'No' })
})

test('a reader that came late knows from where it knows the text', () => {
  const assembler = createMessageAssembler()
  expect(assembler.add(delta('a', 10, 'abc'))).toEqual({ messageId: 'a', from: 10, text: 'abc' })
  expect(assembler.add(delta('a', 12, 'CD'))).toEqual({ messageId: 'a', from: 10, text: 'abCD' })
  // A piece is missing between: what was before it is no part of the known text.
  expect(assembler.add(delta('a', 20, 'x'))).toEqual({ messageId: 'a', from: 20, text: 'x' })
  expect(assembler.add(delta('a', 5, 'y'))).toEqual({ messageId: 'a', from: 5, text: 'y' })
})

test('other events and strange ones change nothing', () => {
  const assembler = createMessageAssembler()
  const others = [
    { event_type: 'message', payload: { role: 'assistant', text: 'Hi' } },
    { event_type: 'message_delta', payload: { text: 'no place' } },
    { event_type: 'message_delta', payload: { message_id: 1, offset: '0', text: null } },
  ]
  for (const one of others) expect(assembler.add(one)).toBeUndefined()
  expect(assembler.messages.size).toBe(0)
})

test('however a text is cut and taken back, what is left is what the rule of the contract gives', () => {
  const random = seeded(11)
  for (let round = 0; round < 200; round += 1) {
    const assembler = createMessageAssembler()
    let expected = ''
    for (let step = 0; step < 30; step += 1) {
      const offset = random.chance(0.2) ? random.int(expected.length + 1) : expected.length
      const text = random.pick(['a', 'bc', 'ü€', '😀', ''])
      expected = expected.slice(0, offset) + text
      expect(assembler.add(delta('m', offset, text))).toEqual({
        messageId: 'm',
        from: 0,
        text: expected,
      })
    }
  }
})
