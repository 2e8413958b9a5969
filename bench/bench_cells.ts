/** The cells of the cross-runtime benchmark, and the installed programs that they need. */
import { resolve } from "node:path";
import process from "node:process";
import { formatSize } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import type { BenchCell } from "../src/report/bench_result.ts";
import { commandOn, Program, ROOT, RUNTIMES, runtimeVersions } from "./programs.ts";
import { compileC } from "./readers/compile.ts";

/** Programs whose readers are measured. */
export const READERS = ["deno", "bun", "node", "python", "c"] as const;
/** Programs whose floods are measured. */
export const SENDERS = ["deno", "bun", "node", "c"] as const;
const MODES = ["naive", "drain"] as const;

export type Reader = typeof READERS[number];
export type Sender = typeof SENDERS[number];

export interface CellOptions {
  readers: readonly Reader[];
  senders: readonly Sender[];
  /** Message sizes, bytes. */
  readerSizes: readonly number[];
  senderSizes: readonly number[];
}

/** All cells, in the order of the table. */
export function listCells(options: CellOptions): BenchCell[] {
  const { readers, senders, readerSizes, senderSizes } = options;
  return [
    ...readerSizes.flatMap((size) =>
      readers.flatMap((who) =>
        MODES.map((mode): BenchCell => ({ kind: "reader", who, mode, size }))
      )
    ),
    ...senderSizes.flatMap((size): BenchCell[] => [
      ...senders.map((who): BenchCell => ({ kind: "sender", who, size })),
      { kind: "control", who: "c", size },
      { kind: "iperf3", who: "iperf3", size },
    ]),
  ];
}

/** A short, unique name of a cell: `bun drain, 64k`. */
export function nameCell(cell: BenchCell): string {
  const size = formatSize(cell.size);
  switch (cell.kind) {
    case "reader":
      return `${cell.who} ${cell.mode}, ${size}`;
    case "sender":
      return `${cell.who} flood, ${size}`;
    case "control":
      return `control, ${size}`;
    case "iperf3":
      return `iperf3, ${size}`;
  }
}

/** The programs to measure with, and the reasons why others are missing. */
export interface Installed {
  /** Versions. */
  runtimes: Partial<Record<Runtime, string>>;
  /** Versions. */
  programs: Partial<Record<"python" | "c" | "iperf3", string>>;
  /** Paths of reader.c and peer.c as compiled programs. */
  reader: string | undefined;
  peer: string | undefined;
  /** The reason, such as `no python3`, by program. */
  missing: Partial<Record<Reader | "iperf3", string>>;
}

/** Time limit for a program that prints its version or help. Seconds. */
const CHECK_SECONDS = 20;

/** Checks all programs that these cells need: each must run, not only exist. */
export async function findInstalled(cells: readonly BenchCell[]): Promise<Installed> {
  const installed: Installed = {
    runtimes: {},
    programs: {},
    reader: undefined,
    peer: undefined,
    missing: {},
  };
  const needed = new Set<string>(cells.map(({ who }) => who));
  for (const runtime of RUNTIMES.filter((each) => needed.has(each))) {
    const why = await tryCheck(`no ${runtime}`, async () => {
      // Its version, and whether it runs our files.
      Object.assign(installed.runtimes, await runtimeVersions([runtime]));
      await new Program(commandOn(runtime, "client.ts", "--help"), { seconds: CHECK_SECONDS })
        .ended();
    });
    if (why !== undefined) installed.missing[runtime] = why;
  }
  for (const [who, program] of [["python", "python3"], ["iperf3", "iperf3"]] as const) {
    if (!needed.has(who)) continue;
    const why = await tryCheck(`no ${program}`, async () => {
      const check = new Program([program, "--version"], { seconds: CHECK_SECONDS });
      const { stdout } = await check.ended();
      installed.programs[who] = stdout.split("\n")[0]!.trim();
    });
    if (why !== undefined) installed.missing[who] = why;
  }
  try {
    installed.reader = await compileC(resolve(ROOT, "bench/readers/reader.c"));
    installed.peer = await compileC(resolve(ROOT, "bench/peers/peer.c"));
    installed.programs.c = await compilerVersion();
  } catch (error) {
    installed.missing.c = (error as Error).message.replace(`${ROOT}/`, "");
  }
  return installed;
}

/** Why a cell cannot be measured here; undefined: it can. */
export function whySkipped(cell: BenchCell, { missing }: Installed): string | undefined {
  // The reader of every flood is a drain in C.
  return missing[cell.who as Reader] ??
    (cell.kind === "sender" && missing.c !== undefined
      ? `${missing.c}, which the drain needs`
      : undefined);
}

/** Undefined where the check succeeds; else `no python3`, or the program's error message. */
async function tryCheck(absent: string, check: () => Promise<void>): Promise<string | undefined> {
  try {
    await check();
    return undefined;
  } catch (error) {
    const { name, message } = error as Error;
    if (name === "AbortError") throw error;
    if (/ENOENT|is not installed|No such file|not found in \$PATH/.test(message)) return absent;
    return `${absent} that works: ${message.replaceAll("\n", " ").slice(0, 200)}`;
  }
}

/** The version of the compiler that compileC chooses. */
async function compilerVersion(): Promise<string> {
  for (const compiler of [process.env.CC ?? "cc", "gcc", "clang"]) {
    try {
      const words = [...compiler.split(/\s+/), "--version"];
      const { stdout } = await new Program(words, { seconds: CHECK_SECONDS }).ended();
      return stdout.split("\n")[0]!.trim();
    } catch (error) {
      if ((error as Error).name === "AbortError") throw error;
    }
  }
  return "a compiler of unknown version";
}
