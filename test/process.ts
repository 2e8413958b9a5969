/** Programs of this project as real processes: every one has a deadline, and none outlives the tests. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import process from "node:process";
import { runtime as thisRuntime } from "../src/kernel/runtime.ts";

export type Runtime = "deno" | "bun" | "node";
export const ROOT = resolve(import.meta.dirname!, "..");

export interface RunOptions {
  /** Default: the one that runs this test. */
  runtime?: Runtime;
  /** When it is killed; default 60 s. */
  timeoutMs?: number;
  /** Standard input, which is empty unless given. */
  input?: string;
  /** A descriptor that takes its standard output, which is then not collected. */
  stdout?: number;
  /** Added to the environment. */
  env?: Record<string, string>;
  /** Default: the project. */
  cwd?: string;
  /** Deno's permissions, default all; without a terminal there is no prompt. */
  permissions?: readonly string[];
  /** Node's access to libc, which the other runtimes always have; default true. */
  ffi?: boolean;
  /** A command that starts it: `["prlimit", "--fsize=1000"]`. */
  under?: readonly string[];
  /** Sends a signal, SIGINT unless told otherwise, once the output (both streams) matches. */
  signalAfter?: { pattern: RegExp; signal?: NodeJS.Signals };
}

export interface RunResult {
  /** Undefined: a signal ended it, which `signal` names. */
  status: number | undefined;
  signal: NodeJS.Signals | undefined;
  stdout: string;
  stderr: string;
  /** It was killed because its time was up. */
  timedOut: boolean;
}

/** The programs that can be had here, and how each starts a file of ours. */
function command(
  runtime: Runtime,
  file: string,
  { permissions = ["-A"], ffi = true }: RunOptions,
): string[] {
  const program = hasBinary(runtime) ? binary(runtime) : process.execPath;
  switch (runtime) {
    case "deno":
      return [program, "run", "--node-modules-dir=manual", "--no-prompt", ...permissions, file];
    case "bun":
      return [program, file];
    case "node":
      return [program, ffi ? "--experimental-ffi" : "--no-experimental-ffi", "--no-warnings", file];
  }
}

// Not process.execPath, nor the real path: Deno's node:child_process gives whatever it starts by its
// own path all permissions (seen in 2.9.6).
const binary = (runtime: Runtime) => resolve(ROOT, "node_modules/.bin", runtime);
const hasBinary = (runtime: Runtime) => existsSync(binary(runtime));

/** Whether that runtime is installed here. */
export function hasRuntime(runtime: Runtime): boolean {
  return runtime === thisRuntime || hasBinary(runtime);
}

/** Those that `deno task serve` has. */
export const SERVE_PERMISSIONS = [
  ...["--allow-net", "--allow-ffi", "--allow-read", "--allow-write"],
  "--allow-env=NOTIFY_SOCKET,WATCHDOG_USEC,WATCHDOG_PID",
];

const living = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of living) child.kill("SIGKILL");
});

/** A program that runs. */
export class Program {
  /** So far. */
  stdout = "";
  stderr = "";
  /** Settles when it has ended and said all it had to say; never rejects. */
  readonly ended: Promise<RunResult>;
  readonly #child: ChildProcess;
  readonly #listeners = new Set<() => void>();

  constructor(program: string, args: readonly string[], options: RunOptions) {
    const child = spawn(program, args, {
      cwd: options.cwd ?? ROOT,
      env: { ...process.env, NO_COLOR: "1", ...options.env },
      stdio: ["pipe", options.stdout ?? "pipe", "pipe"],
    });
    this.#child = child;
    living.add(child);
    let timedOut = false;
    const deadline = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, options.timeoutMs ?? 60_000);
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
      this.#changed();
    });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
      this.#changed();
    });
    child.stdin!.on("error", () => {});
    child.stdin!.end(options.input ?? "");
    this.ended = new Promise((resolve) => {
      const end = (status: number | null, signal: NodeJS.Signals | null) => {
        clearTimeout(deadline);
        living.delete(child);
        resolve({
          status: status ?? undefined,
          signal: signal ?? undefined,
          stdout: this.stdout,
          stderr: this.stderr,
          timedOut,
        });
        this.#changed();
      };
      child.on("error", (error) => {
        this.stderr += String(error);
        end(null, null);
      });
      child.on("exit", () => living.delete(child));
      child.on("close", end);
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Not the child's own kill: on Deno 2.9.6 that works once, and then hides the exit status. */
  kill(signal: NodeJS.Signals): void {
    if (!living.has(this.#child)) return;
    try {
      process.kill(this.pid, signal);
    } catch (error) {
      // It may have ended by itself, and its exit not been told of yet.
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  /** Takes no more of its standard output, as `| head -1` would. */
  closeStdout(): void {
    this.#child.stdout?.destroy();
  }

  /** The same for standard error. */
  closeStderr(): void {
    this.#child.stderr?.destroy();
  }

  /** Waits until the output (both streams) matches; rejects if it ends first. */
  async saw(pattern: RegExp): Promise<RegExpExecArray> {
    let over = false;
    void this.ended.then(() => over = true);
    while (true) {
      const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
      if (match !== null) return match;
      if (over) throw new Error(`ended without ${pattern}: ${this.stdout}${this.stderr}`);
      await new Promise<void>((resolve) => {
        this.#listeners.add(resolve);
        void this.ended.then(() => resolve());
      });
    }
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
    this.#listeners.clear();
  }
}

/** Starts a file of this project with its arguments: `start(["client.ts", "--json"])`. */
export function start(args: readonly string[], options: RunOptions = {}): Program {
  const [file, ...rest] = args;
  const { runtime = thisRuntime } = options;
  const { under = [] } = options;
  const [program, ...own] = [...under, ...command(runtime, resolve(ROOT, file!), options)];
  return new Program(program!, [...own, ...rest], options);
}

/** Runs a file of this project to its end. */
export async function run(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const program = start(args, options);
  if (options.signalAfter !== undefined) {
    const { pattern, signal = "SIGINT" } = options.signalAfter;
    await program.saw(pattern).then(() => program.kill(signal), () => {});
  }
  return await program.ended;
}
