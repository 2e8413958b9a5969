/**
 * Runs test files against one mutant after the other, in a copy of the project in a temporary folder:
 * the checkout itself is never changed.
 */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import process from "node:process";
import { interrupted } from "../src/cli/program.ts";
import { binary, ROOT } from "./programs.ts";

/** What a run of one test file came to. */
export interface TestRun {
  outcome: "passed" | "failed" | "timed-out";
  seconds: number;
  /** The first line of the output that reports a failure. */
  failure?: string;
}

/** How each of them runs a test file. Their reports come while it runs. */
const COMMANDS = {
  node: [
    ...["--experimental-ffi", "--no-warnings", "--max-old-space-size=1500", "--test"],
    // A failed test leaves its sockets open: that must not keep the file from ending.
    ...["--test-force-exit", "--test-isolation=none", "--test-reporter=tap"],
  ],
  bun: ["test", "--bail", "--timeout", "300000"],
};
export type MutationRuntime = keyof typeof COMMANDS;

/** A test's failure in these reports. */
const FAILURE = /^\s*not ok .*|^\(fail\).*/m;
/** What the copy does not need. */
const LEFT_OUT = new Set([".git", "node_modules", "dist"]);

/** A copy of the project; `end` removes it. */
export class ProjectCopy {
  readonly folder: string = mkdtempSync(join(tmpdir(), "speedlimit-mutation-"));
  readonly #runtime: MutationRuntime;

  constructor(runtime: MutationRuntime) {
    this.#runtime = runtime;
    process.on("exit", () => this.end());
    cpSync(ROOT, this.folder, {
      recursive: true,
      filter: (source) => !LEFT_OUT.has(relative(ROOT, source).split("/")[0]!),
    });
    symlinkSync(resolve(ROOT, "node_modules"), join(this.folder, "node_modules"));
  }

  read(file: string): string {
    return readFileSync(join(this.folder, file), "utf8");
  }

  write(file: string, text: string): void {
    writeFileSync(join(this.folder, file), text);
  }

  end(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  /**
   * Runs one test file until its end, its first failure or the deadline. Rejects with an AbortError
   * when the benchmark is interrupted.
   */
  async test(file: string, deadlineSeconds: number): Promise<TestRun> {
    const startMs = performance.now();
    const child = spawn(binary(this.#runtime), [...COMMANDS[this.#runtime], `./test/${file}`], {
      cwd: this.folder,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", SPEEDLIMIT_EXPECT_RUNTIME: this.#runtime },
      // The leader of a process group, so that what it has started ends with it.
      detached: true,
    });
    const killAll = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
      } catch {
        // Nobody of the group is left.
      }
    };
    let output = "";
    let failure: string | undefined;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output = output.slice(-10_000) + text;
        failure ??= FAILURE.exec(output)?.[0].trim();
        if (failure !== undefined) killAll();
      });
    }
    const stop = interrupted();
    stop.addEventListener("abort", killAll);
    if (stop.aborted) killAll();
    let timedOut = false;
    const deadline = setTimeout(() => {
      timedOut = true;
      killAll();
    }, deadlineSeconds * 1000);
    const status = await new Promise<number | null>((done, failed) => {
      child.once("error", failed);
      child.once("exit", done);
    });
    clearTimeout(deadline);
    stop.removeEventListener("abort", killAll);
    killAll();
    if (stop.aborted) throw new DOMException("interrupted", "AbortError");
    const seconds = (performance.now() - startMs) / 1000;
    if (failure === undefined && timedOut) return { outcome: "timed-out", seconds };
    if (failure === undefined && status === 0) return { outcome: "passed", seconds };
    return { outcome: "failed", seconds, failure: failure ?? lastLine(output, status) };
  }
}

const lastLine = (output: string, status: number | null) =>
  output.trim().split("\n").findLast((line) => /error/i.test(line))?.trim() ??
    `exit status ${status}`;
