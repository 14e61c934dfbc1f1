import { describe, expect, test } from 'vitest'
import { DATABASES, scripted, serveOnBoth } from './setup.ts'

const served = await serveOnBoth()

describe.each(DATABASES)('on %s', (database) => {
  const { get, post, createRun, waitForRun } = served[database]

  test('the statechart tells where the run is, was, and what it accepts', async () => {
    const { run_id } = await createRun(scripted([{ tool: 't', hang: true }]))
    await waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_tool' })
    const { body: chart } = await get(`/runs/${run_id}/statechart`)

    expect(chart).toMatchObject({
      machine: 'run',
      version: expect.any(Number),
      value: 'waiting_on_tool',
      svg_url: '/machines/run.svg',
    })
    expect(chart.can).toContain('cancel.requested')
    expect(chart.can).toContain('tool.finished')
    expect(chart.can).not.toContain('resume.requested')
    const moves = chart.history.map(({ from, to }: { from: string; to: string }) => [from, to])
    expect(moves).toEqual([
      [null, 'queued'],
      ['queued', 'running'],
      ['running', 'waiting_on_tool'],
    ])
    expect(chart.since).toBe(chart.history.at(-1).at)
    const at = chart.history[1].sequence
    const { body: past } = await get(`/runs/${run_id}/statechart?at=${at}`)
    expect(past).toMatchObject({ value: 'running', can: [], history: chart.history.slice(0, 2) })
    await post(`/runs/${run_id}/cancel`)
  })

  test('the machines are served as JSON, SVG and Mermaid', async () => {
    const { body } = await get('/machines')
    expect(body).toMatchObject({ machines: expect.any(Array), next_cursor: null })
    for (const { id, version } of body.machines) {
      const one = await get(`/machines/${id}`)
      expect(one.body).toMatchObject({ id, version })
      const svg = await get(`/machines/${id}.svg`)
      expect(svg.headers.get('content-type')).toBe('image/svg+xml')
      expect(svg.body).toMatch(/^<svg[^]*data-state=/)
      const mermaid = await get(`/machines/${id}.mmd`)
      expect(mermaid.body).toContain('stateDiagram-v2')
    }
    expect(body.machines.map((machine: { id: string }) => machine.id)).toContain('run')
  })
})
