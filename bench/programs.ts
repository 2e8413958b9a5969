/**
 * Runs the benchmarks' programs: each has a deadline, and ends with the benchmark at the latest.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Runtime } from "../src/kernel/runtime.ts";
import { interrupted } from "../src/cli/program.ts";

/** The runtimes that are measured. */
export const RUNTIMES = ["deno", "bun", "node"] as const;

/** The project's folder. */
export const ROOT: string = resolve(fileURLToPath(import.meta.url), "../..");

/** Where npm has not installed the packages, they come from Deno's own cache. */
const MODULES = existsSync(resolve(ROOT, "node_modules/deno-std")) ? "manual" : "none";
const FLAGS: Record<Runtime, readonly string[]> = {
  deno: ["run", "--no-prompt", `--node-modules-dir=${MODULES}`, "-A"],
  bun: [],
  node: ["--experimental-ffi", "--no-warnings"],
};

/** The program of a runtime. */
export function binary(runtime: Runtime): string {
  const program = resolve(ROOT, "node_modules/.bin", runtime);
  if (existsSync(program)) return program;
  const found = onPath(runtime);
  if (found !== undefined) return found;
  throw new Error(`${runtime} is not installed: there is no ${program}; run npm ci`);
}

/** Finds a program in the folders of PATH. */
function onPath(name: string): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter).filter((folder) => folder !== "");
  return folders.map((folder) => resolve(folder, name)).find((file) => existsSync(file));
}

/** The command that runs a file of this project, such as `client.ts`, on a runtime. */
export function commandOn(runtime: Runtime, file: string, ...args: string[]): string[] {
  return [binary(runtime), ...FLAGS[runtime], resolve(ROOT, file), ...args];
}

/** The version of each runtime: `{deno: "2.9.6", ...}`. */
export async function runtimeVersions(
  runtimes: readonly Runtime[],
): Promise<Partial<Record<Runtime, string>>> {
  const versions: Partial<Record<Runtime, string>> = {};
  for (const runtime of runtimes) {
    const { stdout } = await new Program([binary(runtime), "--version"], { seconds: 10 }).ended();
    versions[runtime] = /\d+\.\d+\.\d+\S*/.exec(stdout)?.[0] ?? stdout.trim();
  }
  return versions;
}

export interface ProgramOptions {
  /** Deadline: after this time the program is killed, and has failed. */
  seconds: number;
  /** Exit statuses that are no failure; default only 0. */
  statuses?: readonly number[];
}

export interface PairOptions extends ProgramOptions {
  /**
   * Matches what the server prints once it listens, and captures the port; default `listening
   * PORT`.
   */
  listening?: RegExp;
}

const living = new Set<Program>();
const killAll = () => {
  for (const each of living) each.kill();
};
process.on("exit", killAll);

/** A started program. */
export class Program {
  /** The output so far. */
  stdout = "";
  stderr = "";
  readonly #words: readonly string[];
  readonly #options: ProgramOptions;
  readonly #child: ChildProcess;
  readonly #closed = Promise.withResolvers<void>();
  #failure: string | undefined;
  #ended = false;
  #interrupted = false;
  #changed: () => void = () => {};

  constructor(words: readonly string[], options: ProgramOptions) {
    this.#words = words;
    this.#options = options;
    const [program, ...args] = words as [string, ...string[]];
    // A process group of its own, so that the processes it starts can be ended with it.
    this.#child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
      cwd: ROOT,
      env: { ...process.env, NO_COLOR: "1" },
    });
    living.add(this);
    const stop = interrupted();
    const onAbort = () => this.kill();
    stop.addEventListener("abort", onAbort);
    if (stop.aborted) onAbort();
    const deadline = setTimeout(() => {
      this.#failure = `did not end within ${options.seconds} s`;
      this.kill();
    }, options.seconds * 1000);
    const end = (failure: string | undefined) => {
      if (this.#ended) return;
      clearTimeout(deadline);
      stop.removeEventListener("abort", onAbort);
      living.delete(this);
      this.#ended = true;
      this.#failure ??= failure;
      this.#closed.resolve();
      this.#changed();
    };
    this.#child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
      this.#changed();
    });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => this.stderr += text);
    this.#child.on("error", (error) => end(`could not be started: ${error.message}`));
    this.#child.on("close", (status, signal) => {
      const { statuses = [0] } = this.#options;
      if (signal !== null) end(`was killed by ${signal}`);
      else if (statuses.includes(status!) || (this.#interrupted && status === 130)) end(undefined);
      else end(`exited with status ${status}`);
    });
  }

  /** The process id. Throws an Error where the program could not be started. */
  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw this.#error(this.#failure ?? "could not be started");
    return pid;
  }

  /** Kills the program and all that it started. */
  kill(): void {
    this.#signal("SIGKILL");
  }

  /** Sends SIGTERM. */
  terminate(): void {
    this.#signal("SIGTERM");
  }

  /** Sends SIGINT, as Ctrl-C does; exit status 130 is then no failure. */
  interrupt(): void {
    this.#interrupted = true;
    this.#signal("SIGINT");
  }

  #signal(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (this.#ended || pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // The process has ended, and its close event is about to follow.
    }
  }

  /** Waits until standard output matches; rejects if the program ends before that. */
  async saw(pattern: RegExp): Promise<RegExpExecArray> {
    while (true) {
      const match = pattern.exec(this.stdout);
      if (match !== null) return match;
      if (this.#ended) throw this.#error(this.#failure ?? `ended without ${pattern}`);
      await new Promise<void>((resolve) => this.#changed = resolve);
    }
  }

  /** Waits for the program's end; rejects if it failed. */
  async ended(): Promise<{ stdout: string; stderr: string }> {
    await this.#closed.promise;
    if (this.#failure !== undefined) throw this.#error(this.#failure);
    return { stdout: this.stdout, stderr: this.stderr };
  }

  /** Waits for its end; resolves to the JSON value in the last line of standard output. */
  async figures(): Promise<unknown> {
    const { stdout } = await this.ended();
    const last = stdout.trimEnd().split("\n").at(-1) ?? "";
    try {
      return JSON.parse(last);
    } catch (cause) {
      throw this.#error(`ended without printing JSON: ${last.slice(0, 200)}`, cause);
    }
  }

  #error(what: string, cause?: unknown): Error {
    if (interrupted().aborted) return new DOMException("interrupted", "AbortError");
    const words = this.#words.map((word) => word.replace(`${ROOT}/`, "")).join(" ");
    const stderr = this.stderr.trim().split("\n").slice(-3).join("; ");
    return new Error(`${words} ${what}${stderr === "" ? "" : `: ${stderr}`}`, { cause });
  }
}

/** The figures that each end of a connection printed. */
export interface PairFigures {
  sent: unknown;
  read: unknown;
}

/**
 * Runs a server, which prints its port, and one reader of it until both end. If one of them fails,
 * it kills the other and rejects.
 */
export async function runPair(
  server: readonly string[],
  reader: (port: string) => readonly string[],
  { listening = /^listening (\d+)$/m, ...options }: PairOptions,
): Promise<PairFigures> {
  const programs = [new Program(server, options)];
  try {
    const [, port] = await programs[0]!.saw(listening);
    programs.push(new Program(reader(port!), options));
    const [sent, read] = await Promise.all(programs.map((each) => each.figures()));
    return { sent, read };
  } finally {
    for (const each of programs) each.kill();
  }
}
