/** One test file on one runtime, as a process group of its own. */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { type Counts, readReport } from "./run_junit.ts";

export const RUNTIMES = ["deno", "bun", "node"] as const;
export type Runtime = typeof RUNTIMES[number];

export interface Job {
  runtime: Runtime;
  /** Its path from the project's folder: `test/net_test.ts`. */
  file: string;
}

export interface JobResult extends Counts {
  /** Tests that were skipped, with the reason. */
  skips: string[];
  /** All that it printed. */
  output: string;
  seconds: number;
}

/** A job that takes this long hangs: on a quiet machine none takes a fifth of it. */
const LONGEST_MS = 5 * 60_000;
/** Between SIGTERM, on which programs end their own readers, and SIGKILL. */
const PATIENCE_MS = 4000;
/** For output that is still in the pipe; a process that outlives its test may keep the pipe open. */
const LAST_OUTPUT_MS = 1000;

/** How each runtime runs a test file and writes a JUnit report. */
function command({ runtime, file }: Job, report: string): string[] {
  switch (runtime) {
    case "deno":
      return [
        ...["deno", "test", "-A", "--no-check", "--node-modules-dir=manual"],
        `--junit-path=${report}`,
        file,
      ];
    case "bun":
      return [
        ...["bun", "test", "--timeout", "300000", "--reporter=junit"],
        `--reporter-outfile=${report}`,
        file,
      ];
    case "node":
      return [
        ...["node", "--experimental-ffi", "--no-warnings", "--test"],
        // A failed test leaves its sockets open: that must not keep the file from ending.
        "--test-force-exit",
        // In a process of its own, a file that is ended so may lose its last results on their way.
        "--test-isolation=none",
        ...["--test-reporter=spec", "--test-reporter-destination=stdout"],
        ...["--test-reporter=junit", `--test-reporter-destination=${report}`],
        file,
      ];
  }
}

const running = new Set<() => Promise<void>>();

/** Ends all jobs that run, and all that they have started. */
export async function endAll(): Promise<void> {
  await Promise.all([...running].map((end) => end()));
}

/** Runs it to its end; never rejects. `folder` takes its report. */
export async function runJob(root: string, job: Job, folder: string): Promise<JobResult> {
  const { runtime, file } = job;
  const report = join(folder, `${runtime}-${file.replaceAll("/", "-")}.xml`);
  const [program, ...args] = command(job, report) as [string, ...string[]];
  const startMs = performance.now();
  const child = spawn(program, args, {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      SPEEDLIMIT_EXPECT_RUNTIME: runtime,
      NO_COLOR: "1",
      // Tests start hundreds of programs: Node takes half as long to start with its cache.
      NODE_COMPILE_CACHE: join(folder, "node"),
    },
    // The leader of a process group, so that what it has started ends with it.
    detached: true,
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => output += text);
  }
  const signalAll = (signal: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {
      // Nobody of the group is left.
    }
  };
  const closed = new Promise<void>((done) => child.once("close", () => done()));
  const exited = new Promise<number | null>((done) => {
    child.once("error", (error) => {
      output += `${runtime} cannot be started: ${error.message}\n`;
      done(null);
    });
    child.once("exit", done);
  });
  const end = async () => {
    signalAll("SIGTERM");
    const timer = setTimeout(() => signalAll("SIGKILL"), PATIENCE_MS);
    await exited;
    clearTimeout(timer);
  };
  running.add(end);
  const timer = setTimeout(() => {
    output += `\nkilled: it took longer than ${LONGEST_MS / 60_000} min\n`;
    void end();
  }, LONGEST_MS);
  const status = await exited;
  clearTimeout(timer);
  running.delete(end);
  let lastOutput: ReturnType<typeof setTimeout> | undefined;
  await Promise.race([
    closed,
    new Promise((done) => lastOutput = setTimeout(done, LAST_OUTPUT_MS)),
  ]);
  clearTimeout(lastOutput);
  signalAll("SIGKILL");

  const result: JobResult = {
    ...{ passed: 0, failed: 0, skipped: 0, skips: [], output },
    seconds: (performance.now() - startMs) / 1000,
  };
  try {
    Object.assign(result, readReport(readFileSync(report, "utf8"), output));
  } catch {
    result.output += `\nno report was written (exit status ${status})\n`;
  }
  const { passed, failed, skipped } = result;
  // A crash outside of every test, or a run of nothing, is a failure as well.
  if ((status !== 0 && failed === 0) || passed + failed + skipped === 0) result.failed++;
  return result;
}
