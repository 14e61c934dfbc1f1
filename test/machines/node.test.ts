import { expect, test } from 'vitest'
import { initialTransition, transition } from 'xstate'
import { getShortestPaths } from 'xstate/graph'
import { nodeMachine, type NodeEvent } from '../../machines/node.ts'
import { describeMachine } from '../../src/diagrams/graph.ts'

const EVENTS: NodeEvent[] = [
  { type: 'node.registered' },
  { type: 'drain.requested' },
  { type: 'drain.finished' },
]
const graph = describeMachine(nodeMachine, 1)
const reached = getShortestPaths(nodeMachine, { events: EVENTS }).map(({ state }) => state)
const valueAfter = (value: string, event: NodeEvent): string =>
  transition(nodeMachine, nodeMachine.resolveState({ value: value as 'serving' }), event)[0].value

test('every state of a node is reached', () => {
  expect(reached.map(({ value }) => value).toSorted()).toEqual(
    graph.states.map(({ id }) => id).toSorted(),
  )
})

test('every state but the last names wakers, and each leads on', () => {
  for (const { id, wakers } of graph.states.filter((state) => state.id !== 'stopped')) {
    expect(wakers.length, id).toBeGreaterThan(0)
    for (const type of wakers) expect(valueAfter(id, { type } as NodeEvent), id).not.toBe(id)
  }
})

test('a stopped node stays stopped', () => {
  for (const event of EVENTS) expect(valueAfter('stopped', event)).toBe('stopped')
})

test('a node can be drained before and while it serves, and claims only while it serves', () => {
  expect(initialTransition(nodeMachine)[0].value).toBe('starting')
  expect(valueAfter('starting', { type: 'drain.requested' })).toBe('stopped')
  expect(valueAfter('serving', { type: 'drain.requested' })).toBe('draining')
  const claiming = reached.filter((state) => state.hasTag('claims')).map(({ value }) => value)
  expect(claiming).toEqual(['serving'])
})

test('encoding and decoding any reachable state of a node is the identity', () => {
  for (const state of reached) {
    const stored = JSON.parse(JSON.stringify({ value: state.value })) as { value: 'serving' }
    const decoded = nodeMachine.resolveState(stored)
    expect(decoded.value).toEqual(state.value)
    expect([...decoded.tags]).toEqual([...state.tags])
  }
})
