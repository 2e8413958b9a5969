/**
 * The whole suite under Deno, Bun and Node; closes with a line for each and `N passed, N failed`
 * over the three together. Runs on Node.
 *
 *     npm test                      # all of it
 *     npm test -- net_test.ts       # some files
 *
 * Each file on each runtime is a process of its own (two files run on one runtime only). Several run at the
 * same time, as many as the machine has cores for.
 */
import { globSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import process from "node:process";
import { endAll, type Job, type JobResult, runJob, type Runtime, RUNTIMES } from "./run_job.ts";
import type { Counts } from "./run_junit.ts";

const ROOT = resolve(import.meta.dirname!, "..");

/**
 * What each file takes: seconds on a quiet machine (the mean of the three runtimes), and how many
 * cores it keeps busy meanwhile. Measured; the sum of the loads that run at a time is at most the
 * number of cores.
 */
const COSTS: Record<string, [seconds: number, load: number]> = {
  "article_test.ts": [12, 0.4],
  "bench_test.ts": [37, 0.7],
  "build_test.ts": [36, 0.4],
  "client_numbered_test.ts": [5, 1],
  "client_test.ts": [4, 1],
  "command_line_test.ts": [7, 0.4],
  "connect_test.ts": [3, 0.3],
  "coverage_test.ts": [3, 1],
  "dead_peer_test.ts": [17, 0.2],
  "deadlines_test.ts": [2, 0.3],
  "descriptor_limit_test.ts": [7, 0.2],
  "disk_full_test.ts": [21, 0.6],
  "drain_test.ts": [7, 0.4],
  "figures_test.ts": [2, 0.4],
  "hang_up_test.ts": [7, 0.7],
  "help_test.ts": [3, 1],
  "hidden_backlog_test.ts": [48, 0.1],
  "ipv6_test.ts": [35, 0.3],
  "kill_test.ts": [9, 1],
  "kinds_test.ts": [4, 0.3],
  "lag_test.ts": [4, 0.3],
  "languages_test.ts": [2, 1.4],
  "latency_test.ts": [7, 0.7],
  "limit_attach_test.ts": [39, 0.2],
  "limit_connect_test.ts": [33, 0.3],
  "limit_failures_test.ts": [31, 0.3],
  "limit_kinds_test.ts": [43, 0.1],
  "limit_leaves_test.ts": [24, 0.2],
  "limit_output_test.ts": [51, 0.3],
  "limit_test.ts": [93, 0.2],
  "map_test.ts": [31, 1.2],
  "metrics_test.ts": [4, 0.6],
  "micro_test.ts": [5, 1],
  "net_test.ts": [4, 0.5],
  "own_messages_test.ts": [3, 0.6],
  "page_test.ts": [23, 0.4],
  "publish_test.ts": [3, 1.4],
  "queue_close_test.ts": [3, 0.8],
  "queue_command_test.ts": [6, 1],
  "queue_damage_test.ts": [8, 0.7],
  "queue_database_test.ts": [9, 0.8],
  "queue_faults_test.ts": [16, 0.8],
  "queue_first_test.ts": [2, 0.7],
  "queue_fuzz_test.ts": [4, 0.8],
  "queue_open_test.ts": [6, 1.2],
  "queue_repair_test.ts": [4, 0.8],
  "queue_space_test.ts": [3, 0.8],
  "queue_test.ts": [2, 0.7],
  "reader_work_test.ts": [42, 0.2],
  "relay_place_test.ts": [14, 0.2],
  "relay_policy_test.ts": [12, 0.2],
  "relay_reader_test.ts": [7, 0.2],
  "relay_source_test.ts": [8, 0.6],
  "relay_test.ts": [17, 0.2],
  "remote_test.ts": [37, 0.1],
  "report_test.ts": [11, 0.4],
  "script_test.ts": [7, 0.5],
  "serve_connect_test.ts": [4, 0.4],
  "serve_failures_test.ts": [5, 0.2],
  "serve_readers_test.ts": [7, 0.2],
  "serve_test.ts": [12, 0.1],
  "server_command_line_test.ts": [4, 0.9],
  "server_life_test.ts": [8, 0.4],
  "server_test.ts": [5, 0.4],
  "soak_test.ts": [8, 0.4],
  "source_test.ts": [8, 0.3],
  "spill_test.ts": [12, 0.8],
  "stream_model_test.ts": [4, 1],
  "systemd_test.ts": [8, 0.3],
  "work_end_test.ts": [4, 1],
};
/** Of a file that is not in it: most of those take less than a second. */
const UNKNOWN: [seconds: number, load: number] = [1, 1];

/**
 * These run on one runtime: bench starts its senders and readers on all three itself, and a page in a
 * browser is the same whoever wrote it.
 */
const ONCE: Record<string, Runtime> = { "bench_test.ts": "node", "page_test.ts": "node" };

interface Waiting extends Job {
  seconds: number;
  load: number;
}

/** One that mostly waits should begin early as well, if it waits for long. */
const WAITING = 0.2;

/** Those with the most work first: the lighter ones then run beside them, and not alone at the end. */
function jobsOf(files: readonly string[], cores: number): Waiting[] {
  return files.flatMap((file) => {
    const [seconds, load] = COSTS[basename(file)] ?? UNKNOWN;
    const once = ONCE[basename(file)];
    return (once === undefined ? RUNTIMES : [once]).map((runtime) => ({
      runtime,
      file,
      seconds,
      load: Math.min(load, cores),
    }));
  }).sort((a, b) => b.seconds * (b.load + WAITING) - a.seconds * (a.load + WAITING));
}

/** `31 s`, `3 min`. */
const short = (seconds: number) =>
  seconds < 100 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;

/** How long the rest takes, as far as the table and the pace so far tell. */
class Forecast {
  readonly #startMs = performance.now();
  readonly #cores: number;
  #left: number;
  #done = 0;

  constructor(jobs: readonly Waiting[], cores: number) {
    this.#cores = cores;
    this.#left = jobs.reduce((sum, job) => sum + this.#cost(job), 0);
  }

  /** Seconds of the whole machine. */
  #cost({ seconds, load }: Waiting): number {
    return seconds * load / this.#cores;
  }

  finished(job: Waiting): string {
    this.#left -= this.#cost(job);
    this.#done += this.#cost(job);
    const elapsed = (performance.now() - this.#startMs) / 1000;
    return `about ${short(this.#left * elapsed / this.#done)} left`;
  }
}

function tell({ runtime, file }: Job, result: JobResult, progress: string): void {
  const what = `${runtime} ${basename(file)}`;
  if (result.failed > 0) {
    console.log(`\n== ${what}: ${result.failed} failed\n${result.output.trim()}\n`);
  }
  console.log(progress);
  for (const skip of result.skips) console.log(`  skipped: ${skip}`);
}

async function main(wanted: readonly string[]): Promise<number> {
  const files = globSync("test/*_test.ts", { cwd: ROOT }).sort()
    .filter((file) => wanted.length === 0 || wanted.includes(basename(file)));
  const cores = availableParallelism();
  const waiting = jobsOf(files, cores);
  const count = waiting.length;
  const forecast = new Forecast(waiting, cores);
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-test-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  let interrupted = false;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      interrupted = true;
      void endAll().then(() => process.exit(130));
    });
  }

  const counts = Object.fromEntries(
    RUNTIMES.map((runtime) => [runtime, { passed: 0, failed: 0, skipped: 0 }]),
  ) as Record<Runtime, Counts>;
  const failures: string[] = [];
  let done = 0;
  const finish = (job: Waiting, result: JobResult) => {
    const what = `${job.runtime} ${basename(job.file)}`;
    const state = `file ${++done} of ${count} (${what}, ${short(result.seconds)})`;
    const left = forecast.finished(job);
    tell(job, result, done === count ? state : `${state}, ${left}`);
    if (result.failed > 0) failures.push(`${what}: ${result.failed} failed`);
    for (const key of ["passed", "failed", "skipped"] as const) {
      counts[job.runtime][key] += result[key];
    }
  };

  const running = new Map<Waiting, Promise<void>>();
  while (waiting.length + running.size > 0) {
    const busy = () => [...running.keys()].reduce((sum, job) => sum + job.load, 0);
    for (const job of [...waiting]) {
      if (running.size > 0 && busy() + job.load > cores + 1e-9) continue;
      waiting.splice(waiting.indexOf(job), 1);
      running.set(
        job,
        runJob(ROOT, job, folder).then((result) => {
          running.delete(job);
          if (!interrupted) finish(job, result);
        }),
      );
    }
    await Promise.race(running.values());
    if (interrupted) return 130;
  }

  console.log(failures.length === 0 ? "" : `\n${failures.join("\n")}\n`);
  const total: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const runtime of RUNTIMES) {
    const { passed, failed, skipped } = counts[runtime];
    console.log(`${runtime}: ${passed} passed, ${failed} failed, ${skipped} skipped`);
    for (const key of ["passed", "failed", "skipped"] as const) total[key] += counts[runtime][key];
  }
  const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : "";
  console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
  return total.failed === 0 && count > 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2).map((name) => basename(name)));
