/**
 * Measures whether readers that misbehave slow down the others: of many readers of one source one does
 * not read, one reads at a hundredth of the rate, one resets its connection again and again, and one
 * sends nonsense.
 *
 *     node --no-warnings bench/isolation.ts --out isolation.json
 */
import { tmpdir } from "node:os";
import { choice, flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median } from "../src/measure/statistics.ts";
import { formatMachine } from "../src/report/machine.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import { formatByteRate, formatBytes, parseByteRate, parseCount } from "../src/text/units.ts";
import { ManyReaders } from "./isolation_readers.ts";
import { Feed } from "./kill_feed.ts";
import { RUNTIMES } from "./programs.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { Folder, pause } from "./spill_disk.ts";
import { MemoryWatch, ServerRun } from "./spill_server.ts";

const spec = {
  name: "isolation",
  summary: "Measures whether four readers that misbehave slow down the others, which read\n" +
    "the same source. Exits with 1 if one of the others gets less than 0.97 of what\n" +
    "each gets without the four.",
  usage: ["isolation.ts [OPTIONS]"],
  options: {
    runtime: choice({
      help: "the runtime of the server",
      choices: ["all", ...RUNTIMES],
      default: "all",
    }),
    readers: option({
      value: "N",
      help: "number of readers, four of which misbehave (default 1000)",
      parse: (text) => parseCount(text, { least: 5, most: 10_000 }),
    }),
    rate: option({
      value: "RATE",
      help: "rate of the source, and so of each reader",
      default: "50kB/s",
      parse: parseByteRate,
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
    quick: flag("100 readers for a short time, as a test"),
  },
};

/** Each pair is a run without and a run with the four. */
const USUAL = { readers: 1000, seconds: 10, pairs: 3 };
const QUICK = { readers: 100, seconds: 5, pairs: 1 };
const BAD = 4;
const LEAST = 0.97;
/** A machine that gives the readers less than this share of the rate, without the four, is too slow. */
const KEEPS_UP = 0.95;
const SIZE = 64;
/** How often the source sends. */
const EVERY_MS = 50;
/** From the last connection to the first figure. */
const WARM_UP_MS = 1000;

interface Run {
  /** Bytes a second of each reader that behaves. */
  rates: number[];
  /** The most memory of the server; bytes. */
  memory: number;
}

interface RunOptions {
  runtime: Runtime;
  folder: Folder;
  good: number;
  bad: boolean;
  rate: number;
  seconds: number;
}

async function run({ runtime, folder, good, bad, rate, seconds }: RunOptions): Promise<Run> {
  const feed = await Feed.listen(SIZE, rate, EVERY_MS);
  const server = await ServerRun.start(runtime, seconds + 60, [
    ...["--source", `tcp://127.0.0.1:${feed.port}`, "--frame", `fixed:${SIZE}`],
    ...["--overflow", "spill", "--spill", folder.file("queue"), "--reader-id", "hello"],
    ...["--ack", "tcp", "--max-reader-names", `${good + BAD}`],
  ]);
  const readers = new ManyReaders(Number(server.port));
  try {
    for (let i = 0; i < good; i++) await server.during(readers.add());
    if (bad) await server.during(readers.addBad(rate));
    await server.during(pause(WARM_UP_MS));
    const watch = new MemoryWatch(server.program.pid);
    const before = [...readers.bytes];
    const startMs = performance.now();
    await server.during(pause(seconds * 1000));
    const took = (performance.now() - startMs) / 1000;
    const rates = readers.bytes.map((bytes, i) => (bytes - before[i]!) / took);
    if (readers.failures.length > 0) {
      const { failures } = readers;
      throw new Error(
        `${failures.length} readers lost their connections: ${failures[0]} (${runtime})`,
      );
    }
    return { rates, memory: watch.stop().most };
  } finally {
    readers.end();
    await server.kill();
    await feed.close();
    await folder.clear("queue");
  }
}

/** One line of the result. */
export interface IsolationRow {
  runtime: Runtime;
  readers: number;
  /** Without the four, and beside them: the median of all readers, and the one that got least; bytes/s. */
  alone: { median: number; least: number };
  beside: { median: number; least: number };
  /** Of each pair: the one that got least beside the four, as a share of the median without. */
  shares: number[];
  share: number;
  /** The most memory of the server beside the four; bytes. */
  memory: number;
  target: { least: number };
  /** Null: the readers do not keep up with the source without the four either; it says nothing. */
  met: boolean | null;
}

const HEAD = [
  "runtime",
  "readers",
  "without",
  "beside",
  "least beside",
  "share",
  "target",
  "verdict",
];

function formatRow(row: IsolationRow): string[] {
  const { runtime, readers, alone, beside, share, met, memory } = row;
  return [
    ...[runtime, `${readers}`, formatByteRate(alone.median), formatByteRate(beside.median)],
    ...[formatByteRate(beside.least), `${share.toFixed(3)}x`, `>= ${LEAST}x`],
    `${met === null ? "too slow a machine" : met ? "reached" : "target not reached"}: memory ${
      formatBytes(memory)
    }`,
  ];
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const { quick, rate } = options;
  const { seconds, pairs, ...usual } = quick ? QUICK : USUAL;
  const { readers = usual.readers } = options;
  const runtimes = options.runtime === "all" ? RUNTIMES : [options.runtime];
  const folder = new Folder(tmpdir(), { settle: false });
  const machine = await describeMachine(runtimes);
  const progress = new ProgressLine();
  const rows: IsolationRow[] = [];
  for (const runtime of runtimes) {
    const results = { alone: [] as Run[], beside: [] as Run[] };
    for (let pair = 0; pair < pairs; pair++) {
      progress.update(`${runtime}: pair ${pair + 1} of ${pairs}`);
      const order = pair % 2 === 0 ? ["alone", "beside"] as const : ["beside", "alone"] as const;
      for (const which of order) {
        const how = { runtime, folder, good: readers - BAD, rate, seconds };
        results[which].push(await run({ ...how, bad: which === "beside" }));
      }
    }
    const figures = (runs: readonly Run[]) => ({
      median: median(runs.flatMap(({ rates }) => rates)),
      least: Math.min(...runs.flatMap(({ rates }) => rates)),
    });
    const shares = results.beside.map(({ rates }, i) =>
      Math.min(...rates) / median(results.alone[i]!.rates)
    );
    const share = median(shares);
    const alone = figures(results.alone);
    rows.push({
      ...{ runtime, readers, shares, share, alone },
      beside: figures(results.beside),
      memory: Math.max(...results.beside.map(({ memory }) => memory)),
      target: { least: LEAST },
      met: alone.median < KEEPS_UP * rate ? null : share >= LEAST,
    });
  }
  progress.end();
  printLine(formatTable([HEAD, ...rows.map(formatRow)]));
  printLine(
    `\n${pairs} pairs of runs of ${seconds} s${quick ? "; quick: a test" : ""}\n` +
      formatMachine(machine),
  );
  if (options.out !== undefined) {
    writeResult(options.out, {
      schema: "speedlimit/isolation@1",
      environment: machine,
      options: { runtime: options.runtime, readers, rate, seconds, pairs, quick },
      rows,
    });
  }
  return rows.every(({ met }) => met === true) ? 0 : 1;
}

if (import.meta.main) await runMain("isolation", main);
