/** bin/limit.ts as a process, the readers that tests give it, and what must be left of them: nothing. */
import type { TestContext } from "node:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { assert, assertEquals, assertGreater } from "#std/assert";
import { compileC } from "../bench/readers/compile.ts";
import { CONFIRMED, type LimitResult } from "../src/measure/limit_result.ts";
import { textMessage } from "../src/message/message.ts";
import { kernelSource } from "../src/kernel/kernel.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { type Program, ROOT, run, type RunResult, start } from "./process.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

export const LIMIT = "bin/limit.ts";
export const MESSAGE = textMessage("Hello World!\0");

/** How this runtime starts a file of ours. */
export function command(file: string, ...args: string[]): string[] {
  const flags = {
    deno: ["run", "--node-modules-dir=manual", "--no-prompt", "-A"],
    bun: [],
    node: ["--experimental-ffi", "--no-warnings"],
  }[runtime];
  return [process.execPath, ...flags, resolve(ROOT, file), ...args];
}

export const misbehaving = (behaviour: string, pids: string): string[] =>
  command("test/readers/misbehaving.ts", "{host}", "{port}", behaviour, pids);

/** A reader of bench/readers/kinds.c; undefined, and said so, where there can be none. */
export async function kind(t: TestContext, ...args: string[]): Promise<string[] | undefined> {
  // Whether a window is closed, and what a reader left, shows in TCP_INFO only.
  if (kernelSource !== "sock_diag") {
    skip(t, `no TCP_INFO: source is ${kernelSource}`);
    return undefined;
  }
  const [name, ...rest] = args;
  return await compiled(t, "kinds.c", name!, "{host}", "{port}", ...rest);
}

/** A reader whose limit is the rate that it is told; undefined, and said so, without a C compiler. */
export const paced = (t: TestContext, rate: number): Promise<string[] | undefined> =>
  compiled(t, "paced.c", "{host}", "{port}", String(rate));

async function compiled(
  t: TestContext,
  source: string,
  ...args: string[]
): Promise<string[] | undefined> {
  try {
    return [await compileC(new URL(`../bench/readers/${source}`, import.meta.url)), ...args];
  } catch (error) {
    const why = (error as Error).message;
    if (!why.startsWith("no C compiler")) throw error;
    skip(t, why);
    return undefined;
  }
}

export const fill = (word: string, port: number): string =>
  word.replace("{host}", "127.0.0.1").replace("{port}", String(port));

/** When the process began, in the kernel's ticks; undefined: it does not run, or only waits for its parent to ask. */
function beginningOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return /^[ZX]/.test(fields[0]!) ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export const lives = (pid: number): boolean => beginningOf(pid) !== undefined;

/** A file for readers to write their process ids to, none of which may live afterwards. */
export async function leavingNobody<T>(use: (pids: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-limit-"));
  const file = join(folder, "pids");
  const known = (): number[] => {
    try {
      return readFileSync(file, "utf8").trim().split("\n").map(Number).filter((pid) => pid > 0);
    } catch {
      return [];
    }
  };
  // Another process may get the number of one that has ended.
  const began = new Map<number, string | undefined>();
  const look = () => {
    for (const pid of known()) if (!began.has(pid)) began.set(pid, beginningOf(pid));
  };
  const left = () =>
    [...began].filter(([pid, at]) => at !== undefined && beginningOf(pid) === at).map(([pid]) =>
      pid
    );
  const looking = setInterval(look, 20);
  try {
    const result = await use(file);
    look();
    assertGreater(known().length, 0, "no reader was ever started");
    await until(`the end of ${known()}`, 3000, () => left().length === 0);
    return result;
  } finally {
    clearInterval(looking);
    look();
    for (const pid of left()) process.kill(pid, "SIGKILL");
    rmSync(folder, { recursive: true });
  }
}

export const parse = ({ stdout, stderr }: RunResult): LimitResult => {
  assertEquals(stdout.trimEnd().split("\n").length, 1, `${stdout}${stderr}`);
  return JSON.parse(stdout);
};

/** No narrower interval than that time allows; a steady reader's is as narrow all the same. */
export const SOON = ["--time", "20s"];

/** No option is first: Bun takes a `--` that comes first for its own. */
export const limitOf = (reader: readonly string[], ...options: string[]): Promise<RunResult> =>
  run([LIMIT, "--json", ...(options.includes("--time") ? [] : SOON), ...options, "--", ...reader], {
    timeoutMs: 120_000,
  });

/** bin/limit.ts that waits for readers, and the port that they may come to. */
export async function attaching(
  options: readonly string[],
  use: (program: Program, port: number) => Promise<void>,
): Promise<void> {
  const args = [LIMIT, "--attach", "--listen", "127.0.0.1:0", "--json", ...SOON, ...options];
  const program = start(args, { timeoutMs: 120_000 });
  try {
    const waiting = /waiting for readers on 127\.0\.0\.1:(\d+)/;
    const [, port] = await within("listening", 10_000, program.saw(waiting));
    await use(program, Number(port));
  } finally {
    program.kill("SIGKILL");
    await within("its end", 5000, program.ended);
  }
}

/**
 * The interval must hold the rate of a reader that is as fast as that, give or take `share` of it. A
 * search that others on this machine disturb has a wider interval, and says so; of an undisturbed one
 * the width is what was asked for.
 */
export function assertFound(result: LimitResult, rate: number, share: number): void {
  const { outcome, message, limit, precision, trials } = result;
  const what = JSON.stringify({ outcome, message, limit, trials });
  assert(limit !== null && /^(found|irregular)$/.test(outcome), what);
  assert(limit.lower < limit.upper, what);
  assert(limit.lower <= rate * (1 + share), what);
  assert(limit.upper >= rate * (1 - share), what);
  if (message !== CONFIRMED) return;
  // The trial just below may take a part away.
  assert(limit.upper / limit.lower <= 1.0001 + 1.02 * precision, what);
}
