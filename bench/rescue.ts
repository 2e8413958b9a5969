/**
 * Stops the article's fix for some seconds while a server goes on receiving a feed for it, and measures how
 * long it takes to catch up: with a bound for what lies unread at it, and without.
 *
 *     npx node --no-warnings bench/rescue.ts --out bench/results/rescue.json
 */
import { spawn } from "node:child_process";
import process from "node:process";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import type { LimitResult } from "../src/measure/limit_result.ts";
import { formatMachine, type Machine } from "../src/report/machine.ts";
import { formatTable } from "../src/text/table.ts";
import { formatByteRate, formatBytes, formatSeconds } from "../src/text/units.ts";
import { Feed, type FeedConnection } from "./kill_feed.ts";
import { commandOn, Program, ROOT, RUNTIMES } from "./programs.ts";
import { figure, metricsOf } from "./server_figures.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { Folder, pause } from "./spill_disk.ts";
import { ServerRun } from "./spill_server.ts";

const spec = {
  name: "rescue",
  summary: "Stops bench/readers/drain.py while a server receives a feed for it, and measures\n" +
    "how long it takes to catch up, with --unread and without. Runs on Node.",
  usage: ["rescue.ts [OPTIONS]"],
  options: {
    runtime: choice({
      help: "the runtime of the server",
      choices: ["all", ...RUNTIMES] as const,
      default: "all",
    }),
    folder: option({ value: "DIR", help: "where the queue is", default: ".", parse: String }),
    quick: flag("only the stop of 4 s, with --unread auto"),
    out: option({ value: "FILE.json", help: "writes the result", parse: parseOutFile }),
  },
};

const SIZE = 1000;
/** The feed; bytes a second. */
const RATE = 5e6;
const STOPPED_MS = 4000;
/** Without a bound, it gets so long; seconds. */
const HOPELESS = 60;
/** It is clear when it is no further behind than this time of the feed; seconds. */
const CLEAR = 0.2;
/** It must be clear after so many seconds, and the backlog at this share of its limit. */
const TARGET = { seconds: 2, share: 0.8 };
const READER = `${ROOT}/bench/readers/drain.py`;

interface Case {
  unread: string | null;
  /** Beside what comes while it is stopped; bytes. */
  extra: number;
}

export interface RescueRow extends Case {
  runtime: Runtime;
  /** When the reader goes on; bytes. */
  backlog: number;
  /** Null: it was not clear in `given` seconds. */
  seconds: number | null;
  given: number;
  /** What it should take at most. */
  target: number | null;
  /** Bytes that the feed sent and the reader did not get. */
  missing: number;
}

export interface RescueResult {
  schema: "speedlimit/rescue@1";
  environment: Machine;
  /** Of drain.py, by the runtime of the sender; bytes a second. */
  limits: Partial<Record<Runtime, number>>;
  rows: RescueRow[];
}

export const RESCUE_HEAD: readonly string[] = [
  "runtime",
  "--unread",
  "backlog",
  "cleared in",
  "target",
  "missing",
];

export function formatRescueRow(row: RescueRow): string[] {
  const { runtime, unread, backlog, seconds, target, missing, given } = row;
  return [
    runtime,
    unread ?? "-",
    formatBytes(backlog),
    seconds === null ? `not in ${formatSeconds(given)}` : formatSeconds(seconds),
    target === null ? "-" : formatSeconds(target),
    formatBytes(missing),
  ];
}

const CASES: readonly Case[] = [
  { unread: null, extra: 0 },
  { unread: "auto", extra: 0 },
  { unread: "auto", extra: 200e6 },
  { unread: "auto", extra: 2e9 },
];

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const runtimes = options.runtime === "all" ? RUNTIMES : [options.runtime];
  const machine = await describeMachine(runtimes);
  const folder = new Folder(options.folder, { settle: false });
  const rows: RescueRow[] = [];
  const limits: Partial<Record<Runtime, number>> = {};
  for (const runtime of runtimes) {
    const limit = limits[runtime] = await limitOf(runtime);
    printLine(`${runtime}: the limit of drain.py is ${formatByteRate(limit)}`);
    for (const each of options.quick ? CASES.slice(1, 2) : CASES) {
      const row = await rescue(runtime, each, limit, folder);
      rows.push(row);
      printLine(formatRescueRow(row).join("  "));
    }
  }
  printLine(formatTable([[...RESCUE_HEAD], ...rows.map(formatRescueRow)]));
  printLine(formatMachine(machine));
  const result: RescueResult = {
    schema: "speedlimit/rescue@1",
    environment: machine,
    limits,
    rows,
  };
  if (options.out !== undefined) writeResult(options.out, result);
  return rows.every(({ seconds, target, missing }) =>
      missing === 0 && (target === null || (seconds ?? Infinity) <= target)
    )
    ? 0
    : 1;
}

/**
 * The limit of drain.py, as `limit` finds it: once it has collapsed it has none, and what it had kept up with
 * counts. Bytes a second.
 */
async function limitOf(runtime: Runtime): Promise<number> {
  const reader = ["python3", READER, "{host}", "{port}"];
  const words = commandOn(
    runtime,
    "bin/limit.ts",
    "--json",
    "--size",
    String(SIZE),
    "--",
    ...reader,
  );
  const program = new Program(words, { seconds: 300, statuses: [0, 1] });
  const { limit, keepsUpAt, message } = await program.figures() as LimitResult;
  if (keepsUpAt === 0) throw new Error(`no limit of drain.py: ${message}`);
  return limit === null ? keepsUpAt : (limit.lower + limit.upper) / 2;
}

async function rescue(
  runtime: Runtime,
  each: Case,
  limit: number,
  folder: Folder,
): Promise<RescueRow> {
  const { unread, extra } = each;
  const feed = await Feed.listen(SIZE, RATE);
  const given = unread === null ? HOPELESS : 20 + (extra + 30e6) / (0.3 * limit);
  const server = await ServerRun.start(runtime, 120 + given, [
    ...["--source", `tcp://127.0.0.1:${feed.port}`, "--frame", `fixed:${SIZE}`],
    ...["--overflow", "spill", "--spill", folder.file("queue"), "--metrics", "0"],
    ...(unread === null ? [] : ["--unread", unread]),
  ]);
  const reader = startReader(server.port);
  try {
    const url = await metricsOf(server);
    const lag = () => figure(url, "speedlimit_reader_lag_bytes");
    await pause(2000);
    reader.kill("SIGSTOP");
    feed.add(Math.round(extra / SIZE));
    await pause(STOPPED_MS);
    // Until the server has all of it.
    for (let before = 0, now; (now = await lag()) > before + 1.5 * RATE / 5; before = now) {
      await pause(200);
    }
    const backlog = await lag();
    const sinceMs = performance.now();
    reader.kill("SIGCONT");
    let seconds: number | null = null;
    while (seconds === null && performance.now() - sinceMs < 1000 * given) {
      await pause(50);
      if (await lag() <= CLEAR * RATE) seconds = (performance.now() - sinceMs) / 1000;
    }
    let missing = 0;
    if (seconds !== null) {
      feed.end();
      await pause(200);
      const [{ first, next }] = feed.connections as [FeedConnection];
      const sent = (next - first) * SIZE;
      const endMs = performance.now() + 10_000;
      const received = () => figure(url, "speedlimit_reader_accepted_bytes_total");
      while (await received() < sent && performance.now() < endMs) await pause(50);
      // Its words at the end of the connection say how many bytes it has read.
      server.program.terminate();
      const read = Number(/EOF after (\d+)/.exec(await reader.said)?.[1] ?? 0);
      missing = sent - read;
    }
    const target = unread === null
      ? null
      : TARGET.seconds + backlog / (TARGET.share * limit - RATE);
    return { ...each, runtime, backlog, seconds, given, target, missing };
  } finally {
    reader.kill("SIGKILL");
    await server.kill();
    await feed.close();
    await folder.clear("queue");
  }
}

interface Reader {
  kill(signal: NodeJS.Signals): void;
  /** What it has said, once it has ended. */
  said: Promise<string>;
}

function startReader(port: string): Reader {
  const child = spawn("python3", [READER, "127.0.0.1", port], {
    stdio: ["ignore", "ignore", "pipe"],
    detached: true,
  });
  let text = "";
  child.stderr.setEncoding("utf8").on("data", (more: string) => text += more);
  const kill = (signal: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, signal);
    } catch {
      // It has ended.
    }
  };
  process.once("exit", () => kill("SIGKILL"));
  return { kill, said: new Promise((done) => child.once("close", () => done(text))) };
}

if (import.meta.main) await runMain("rescue", main);
