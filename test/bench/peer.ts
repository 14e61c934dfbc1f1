/**
 * A peer for the benchmark: graphile-worker on the same Postgres doing the same work, jobs of three steps whose results
 * are each recorded before the next one starts. Run by `main.ts` as a process of its own: `peer.ts <url> <jobs>`.
 */
import process from 'node:process'
import { Logger, run } from 'graphile-worker'
import postgres from 'postgres'

const [url = '', jobs = '0'] = process.argv.slice(2)
const count = Number(jobs)
const sql = postgres(url, { max: 1, onnotice: () => {} })
const result = { ok: 1, text: 'z'.repeat(180) }
let done = 0
const finished = Promise.withResolvers<void>()

await sql`create table if not exists peer_results (job int, step text, result jsonb, primary key (job, step))`
const runner = await run({
  connectionString: url,
  // As many jobs at a time as Runlane has active runs, and the batching that its documentation recommends for load.
  concurrency: 200,
  maxPoolSize: 20,
  noHandleSignals: true,
  // A line per job would cost it more than the job.
  logger: new Logger(() => () => {}),
  preset: { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 5, failJobBatchDelay: 5 } },
  taskList: {
    async three_steps(payload, { query }) {
      const { job } = payload as { job: number }
      for (const step of ['a', 'b', 'c']) {
        await query('insert into peer_results values ($1, $2, $3)', [
          job,
          step,
          JSON.stringify(result),
        ])
      }
      done += 1
      if (done === count) finished.resolve()
    },
  },
})
const cpuBefore = process.cpuUsage()
const startedAt = performance.now()
await sql`select graphile_worker.add_job('three_steps', json_build_object('job', i), job_key := null)
  from generate_series(1, ${count}) as i`
await finished.promise
const seconds = (performance.now() - startedAt) / 1000
const cpu = process.cpuUsage(cpuBefore)
process.stdout.write(
  `${JSON.stringify({ seconds, cpu_us: Math.round((cpu.user + cpu.system) / count) })}\n`,
)
await runner.stop()
await sql.end()
