/**
 * Runs a server with a durable queue for long, with readers that come and go, a slow one, and one that is
 * killed again and again, and reports whether its memory, descriptors or threads grow.
 *
 *     node --no-warnings bench/soak.ts --minutes 60 --out soak.json
 */
import { tmpdir } from "node:os";
import { choice, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median } from "../src/measure/statistics.ts";
import { formatMachine } from "../src/report/machine.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import { formatBytes, formatSeconds, UnitError } from "../src/text/units.ts";
import { randomFrom } from "./random.ts";
import { Feed } from "./kill_feed.ts";
import { RUNTIMES } from "./programs.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { type Growth, growthOf, look, type Sample } from "./soak_watch.ts";
import { SoakReaders } from "./soak_readers.ts";
import { bytesIn, Folder, pause } from "./spill_disk.ts";
import { ServerRun } from "./spill_server.ts";

const spec = {
  name: "soak",
  summary: "Runs a server for long while readers come, go, are slow and are killed. Exits\n" +
    "with 1 if its memory, descriptors or threads grow from the first quarter to the\n" +
    "last, or if the reader that is always there misses a message.",
  usage: ["soak.ts [OPTIONS]"],
  options: {
    minutes: option({
      value: "N",
      help: "how long, such as 1 or 0.2, for each runtime",
      default: "60",
      parse: parseMinutes,
    }),
    runtime: choice({
      help: "the runtime of the server and of the reader that is killed",
      choices: ["all", ...RUNTIMES],
      default: "deno",
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
  },
};

function parseMinutes(text: string): number {
  const minutes = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && minutes >= 0.1 && minutes <= 10_000) return minutes;
  throw new UnitError("must be a number of minutes from 0.1 to 10000");
}

const SIZE = 64;
/** Of the source; bytes a second. */
const RATE = 1e6;
const VISITORS = 8;
/** Samples a run: one a second at most. */
const MOST_SAMPLES = 3600;
/** Nothing is compared in this share of the time, and this long at least. */
const WARM_UP = 0.15;
const WARM_UP_S = 3;
/** What may be added from the first quarter to the last. */
const MEMORY = { share: 0.15, amount: 24 << 20 };
/** In a run shorter than this a runtime still grows to its usual size; seconds, and what is added then. */
const SHORT_S = 600;
const SHORT_MEMORY = { share: 0.15, amount: 64 << 20 };
const DESCRIPTORS = { share: 0, amount: 4 };
const THREADS = { share: 0, amount: 1 };

/** One runtime's result. */
interface SoakRow {
  runtime: Runtime;
  seconds: number;
  visits: number;
  kills: number;
  memory: Growth;
  descriptors: Growth;
  threads: Growth;
  /** Of the reader that is always there: the median of all samples, and the most; ms. */
  lateness: { median: number; most: number };
  /** The longest time that the source had to wait; ms. */
  feedPauseMs: number;
  /** What was wrong with the messages of that reader; absent: nothing. */
  fault?: string;
  met: boolean;
  samples: Sample[];
}

async function soak(
  runtime: Runtime,
  seconds: number,
  onSample: (sample: Sample) => void,
): Promise<SoakRow> {
  const folder = new Folder(tmpdir(), { settle: false });
  const queue = folder.file("queue");
  const feed = await Feed.listen(SIZE, RATE);
  const server = await ServerRun.start(runtime, seconds + 60, [
    ...["--source", `tcp://127.0.0.1:${feed.port}`, "--frame", `fixed:${SIZE}`],
    ...["--overflow", "spill", "--spill", queue, "--reader-id", "hello", "--start", "oldest"],
    ...["--ack", "tcp"],
  ]);
  // The source begins with the first reader, and that one is sent everything.
  const first = () => feed.connections[0]!.first;
  const readers = new SoakReaders(Number(server.port), SIZE, randomFrom("soak"), first);
  try {
    let lost: string | undefined;
    await readers.present((why) => lost = why);
    const others = [
      readers.slow("slow", RATE / 2),
      readers.killed("killed", runtime),
      ...Array.from({ length: VISITORS }, (_, i) => readers.visitor(`visitor-${i}`)),
    ];
    for (const other of others) other.catch((error) => lost ??= String(error));
    const everyMs = Math.max(200, Math.min(1000, seconds * 1000 / MOST_SAMPLES));
    const samples: Sample[] = [];
    const startMs = performance.now();
    while (performance.now() - startMs < seconds * 1000) {
      await server.during(pause(everyMs));
      if (lost !== undefined) throw new Error(`a reader lost its connection: ${lost} (${runtime})`);
      const sample = {
        seconds: (performance.now() - startMs) / 1000,
        ...look(server.program.pid),
        onDisk: bytesIn(queue),
        lateness: readers.lateness(),
      };
      samples.push(sample);
      onSample(sample);
    }
    const from = Math.max(WARM_UP_S, seconds * WARM_UP);
    const counted = samples.filter((sample) => sample.seconds >= from);
    const times = counted.map((sample) => sample.seconds);
    const grown = (what: "memory" | "descriptors" | "threads", allowed: typeof MEMORY) =>
      growthOf(counted.map((sample) => sample[what]), times, allowed);
    const memory = grown("memory", seconds < SHORT_S ? SHORT_MEMORY : MEMORY);
    const descriptors = grown("descriptors", DESCRIPTORS);
    const threads = grown("threads", THREADS);
    const late = counted.flatMap(({ lateness }) => lateness ?? []);
    const { fault } = readers;
    return {
      ...{ runtime, seconds, ...readers.counts, memory, descriptors, threads },
      lateness: {
        median: median(late.map((each) => each.median)),
        most: Math.max(...late.map(({ most }) => most)),
      },
      feedPauseMs: feed.longestPauseMs,
      ...(fault === undefined ? {} : { fault }),
      met: memory.met && descriptors.met && threads.met && fault === undefined,
      samples,
    };
  } finally {
    readers.end();
    await server.kill();
    await feed.close();
    await folder.clear("queue");
  }
}

const HEAD = [
  "runtime",
  "what",
  "first quarter",
  "last quarter",
  "an hour",
  "at most",
  "verdict",
];

function formatRow(row: SoakRow): string[][] {
  const line = (what: string, growth: Growth, show: (figure: number) => string) => [
    row.runtime,
    what,
    show(growth.first),
    show(growth.last),
    `${growth.slope < 0 ? "-" : "+"}${show(Math.abs(growth.slope))}`,
    show(growth.most),
    growth.met ? "does not grow" : "grows",
  ];
  const count = (figure: number) => String(Math.round(figure));
  return [
    line("memory", row.memory, formatBytes),
    line("descriptors", row.descriptors, count),
    line("threads", row.threads, count),
  ];
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const runtimes = options.runtime === "all" ? RUNTIMES : [options.runtime];
  const machine = await describeMachine(runtimes);
  const progress = new ProgressLine();
  const rows: SoakRow[] = [];
  for (const runtime of runtimes) {
    const row = await soak(runtime, options.minutes * 60, ({ seconds, memory, descriptors }) => {
      progress.update(
        `${runtime}: ${formatSeconds(seconds)}, ${formatBytes(memory)}, ${descriptors} descriptors`,
      );
    });
    progress.end();
    rows.push(row);
  }
  printLine(formatTable([HEAD, ...rows.flatMap(formatRow)]));
  for (const { runtime, visits, kills, lateness, feedPauseMs, fault } of rows) {
    printLine(
      `${runtime}: ${visits} visits, ${kills} kills; messages came ` +
        `${formatSeconds(lateness.median / 1000)} late (median; at most ` +
        `${formatSeconds(lateness.most / 1000)}); the source waited at most ` +
        `${formatSeconds(feedPauseMs / 1000)}${fault === undefined ? "" : `; ${fault}`}`,
    );
  }
  printLine(formatMachine(machine));
  if (options.out !== undefined) {
    writeResult(options.out, {
      schema: "speedlimit/soak@1",
      environment: machine,
      options: { minutes: options.minutes, runtime: options.runtime, rate: RATE, size: SIZE },
      rows,
    });
  }
  return rows.every(({ met }) => met) ? 0 : 1;
}

if (import.meta.main) await runMain("soak", main);
