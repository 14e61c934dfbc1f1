import { expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { serveIsolation } from './isolation-setup.ts'

const { beside, createBatch, waitForRun } = await serveIsolation()

const REFUSED = 'is not available to agents: the run ends by returning or throwing'
const NOT_KILLED = 'process.kill() of the service itself is not available to agents'

test.each([
  ['throws', 'the search is broken'],
  ['throws_undefined', 'undefined was thrown'],
  ['throws_null', 'null was thrown'],
  ['throws_bare_object', 'something without a text was thrown'],
  ['throws_unstorable', 'half \uFFFD and nul \uFFFD here'],
  ['exit', `process.exit() ${REFUSED}`],
  ['exit_imported', `process.exit() ${REFUSED}`],
  ['abort', `process.abort() ${REFUSED}`],
  ['abort_imported', `process.abort() ${REFUSED}`],
  ['kill', NOT_KILLED],
  ['kill_imported', NOT_KILLED],
  ['kill_pid_as_text', NOT_KILLED],
])('%s fails the run that does it and nobody else: in a tool, in code', async (deed, message) => {
  const tool = await beside({ deed, in: 'tool' })
  expect(outcomeOf(tool)).toEqual(['failed', 1, 'tool_failed', message])
  const code = await beside({ deed, in: 'code' })
  expect(outcomeOf(code)).toEqual(['failed', 1, 'agent_error', message])
})

test.each([
  ['rejects_unheard', 'nobody awaits me'],
  ['rejects_unheard_bare_object', 'something without a text was thrown'],
  ['throws_in_timer', 'too late to catch'],
])('%s is an error of the run whose code it was', async (deed, message) => {
  const run = await beside({ deed, in: 'tool' })
  const told = `an error that nobody caught: ${message}`
  expect(outcomeOf(run)).toEqual(['failed', 1, 'agent_error', told])
})

test.each([
  ['answers_circle', /^the result is not JSON: Converting circular structure to JSON/],
  ['answers_family_tree', /^the result is not JSON: Converting circular structure to JSON/],
  ['answers_bigint', /^the result is not JSON: the result\.total is a bigint$/],
  ['answers_function', /^the result is not JSON: the result\.callback is a function$/],
  ['answers_symbol', /^the result is not JSON: the result\[0\] is a symbol$/],
  ['answers_map', /^the result is not JSON: the result\.found is a Map$/],
  ['answers_nan', /^the result is not JSON: the result\.scores\[1\] is NaN$/],
  ['answers_infinity', /^the result is not JSON: the result is Infinity$/],
  ['answers_failing_to_json', /^the result is not JSON: cannot be shown$/],
  ['answers_nul', /^result\.text contains a NUL character \(U\+0000\)$/],
  ['answers_half_character', /^result contains a lone surrogate, which is not valid Unicode$/],
])('%s: the run says what of the result cannot be kept', async (deed, message) => {
  const tool = await beside({ deed, in: 'tool' })
  expect(outcomeOf(tool)).toEqual(['failed', 1, 'tool_failed', expect.stringMatching(message)])
  // Alone: that the others are not disturbed is shown already.
  const others = await createBatch(
    ['step', 'code'].map((place) => ({ agent: 'rogue', input: { deed, in: place } })),
  )
  for (const { run_id } of others) {
    const run = await waitForRun(run_id)
    expect(outcomeOf(run)).toEqual(['failed', 1, 'invalid_result', expect.stringMatching(message)])
  }
})

test.each([
  ['tool', 'tool_failed', 'a result is larger than 1000000 bytes of JSON'],
  ['step', 'output_too_large', 'a result is larger than 1000000 bytes of JSON'],
  ['code', 'output_too_large', 'the output is larger than 1000000 bytes of JSON'],
])('two megabytes as the result of a %s are too large', async (place, code, message) => {
  const run = await beside({ deed: 'answers_two_megabytes', in: place })
  expect(outcomeOf(run)).toEqual(['failed', 1, code, message])
})

test.each(['posts_null', 'closes_port'])(
  '%s on the port that Node gives to threads reaches nobody',
  async (deed) => {
    for (const place of ['tool', 'code'])
      expect(await beside({ deed, in: place })).toMatchObject({ status: 'completed' })
  },
)

function outcomeOf({ status, attempt, error_code, error_message }: Run): unknown[] {
  return [status, attempt, error_code, error_message]
}
