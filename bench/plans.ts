/**
 * Compares what `plan` predicts with what a server reports: random feeds to a reader with a known limit,
 * through a durable queue.
 *
 *     npx node --no-warnings bench/plans.ts --out bench/results/plans.json
 */
import { choice, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import type { Arrival, Feed as PlannedFeed } from "../src/plan/feed.ts";
import { plan } from "../src/plan/plan.ts";
import { formatMachine } from "../src/report/machine.ts";
import { formatTable } from "../src/text/table.ts";
import { formatBytes, formatSeconds, parseCount } from "../src/text/units.ts";
import { Feed } from "./kill_feed.ts";
import { Program, RUNTIMES } from "./programs.ts";
import { randomFrom } from "./random.ts";
import { compileC } from "./readers/compile.ts";
import { figure, metricsOf } from "./server_figures.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { bytesIn, Folder, pause } from "./spill_disk.ts";
import { ServerRun } from "./spill_server.ts";

const spec = {
  name: "plans",
  summary: "Sends random feeds to bench/readers/paced.c through a server with a queue, and\n" +
    "compares the largest backlog and the time to clear it with what plan predicts.\n" +
    "Runs on Node.",
  usage: ["plans.ts [OPTIONS]"],
  options: {
    runtime: choice({ help: "the runtime of the server", choices: RUNTIMES, default: "deno" }),
    feeds: option({
      value: "N",
      help: "number of random feeds",
      default: "10",
      parse: (text) => parseCount(text, { most: 1000 }),
    }),
    folder: option({ value: "DIR", help: "where the queue is", default: ".", parse: String }),
    out: option({ value: "FILE.json", help: "writes the result", parse: parseOutFile }),
  },
};

const SIZE = 1000;
const LIMIT = 10e6;
/** A feed has so many rates, each for so long; seconds. */
const STEPS = 20;
const STEP = 0.5;
/** Of the steps, those that are peaks, and how fast they are; bytes a second. */
const PEAKS = { share: 0.35, least: 15e6, most: 40e6 };
const QUIET = { least: 0.5e6, most: 5e6 };
/** What lies unread at the reader is not in the server's figures. */
const UNREAD = "64k";
/** It is clear when no more than this time of its limit is left; seconds. */
const CLEAR = 0.02;
const MOST_OFF = 0.05;

interface PlanRow {
  feed: number;
  predicted: { largest: number; clearedAt: number };
  measured: { largest: number; clearedAt: number; disk: number };
}

function randomFeed(seed: number): PlannedFeed {
  const random = randomFrom(seed);
  const between = ({ least, most }: { least: number; most: number }) =>
    least + random() * (most - least);
  const arrivals: Arrival[] = [];
  for (let i = 0; i < STEPS; i++) {
    const rate = between(random() < PEAKS.share ? PEAKS : QUIET);
    arrivals.push({ at: i * STEP, seconds: STEP, bytes: rate * STEP });
  }
  return { arrivals, afterwards: QUIET.least };
}

/** Bytes that have arrived by a time. */
function dueOf({ arrivals, afterwards }: PlannedFeed): (seconds: number) => number {
  const end = STEPS * STEP;
  return (seconds) =>
    arrivals.reduce(
      (sum, { at, seconds: length, bytes }) =>
        sum + bytes * Math.min(1, Math.max(0, (seconds - at) / length)),
      afterwards * Math.max(0, seconds - end),
    );
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const machine = await describeMachine([options.runtime]);
  const folder = new Folder(options.folder, { settle: false });
  const reader = await compileC(new URL("readers/paced.c", import.meta.url));
  const rows: PlanRow[] = [];
  for (let seed = 1; seed <= options.feeds; seed++) {
    const planned = randomFeed(seed);
    const { backlog } = plan({ limit: LIMIT, feed: planned });
    const due = dueOf(planned);
    let begun = false;
    const feed = await Feed.listen(SIZE, (seconds) => begun ? due(seconds) : 0, 2);
    const server = await ServerRun.start(options.runtime, 120, [
      ...["--source", `tcp://127.0.0.1:${feed.port}`, "--frame", `fixed:${SIZE}`],
      ...["--overflow", "spill", "--spill", folder.file("queue"), "--metrics", "0"],
      ...["--unread", UNREAD, "--backlog", "1M"],
    ]);
    const program = new Program([reader, "127.0.0.1", server.port, String(LIMIT)], {
      seconds: 120,
    });
    try {
      const url = await metricsOf(server);
      await server.program.saw(/"event":"reader"/);
      await server.program.saw(/"event":"source".*"connected"/);
      begun = true;
      feed.begin();
      const sinceMs = performance.now();
      const seconds = () => (performance.now() - sinceMs) / 1000;
      const measured = { largest: 0, clearedAt: 0, disk: 0 };
      while (seconds() < backlog.clearedAt! + 2 || measured.clearedAt === 0) {
        if (seconds() > 2 * backlog.clearedAt! + 10) break;
        await pause(10);
        const at = seconds();
        const lag = await figure(url, "speedlimit_reader_lag_bytes");
        if (lag > measured.largest) Object.assign(measured, { largest: lag, clearedAt: 0 });
        if (lag <= CLEAR * LIMIT) measured.clearedAt ||= at;
        measured.disk = Math.max(measured.disk, bytesIn(folder.file("queue")));
      }
      const { largest, clearedAt } = backlog;
      rows.push({ feed: seed, predicted: { largest, clearedAt: clearedAt! }, measured });
      printLine(formatTable([HEAD, rowOf(rows.at(-1)!)]).split("\n")[1]!);
    } finally {
      program.kill();
      await server.kill();
      await feed.close();
      await folder.clear("queue");
    }
  }
  printLine(formatTable([HEAD, ...rows.map(rowOf)]));
  printLine(formatMachine(machine));
  const result = { schema: "speedlimit/plans@1", environment: machine, rows };
  if (options.out !== undefined) writeResult(options.out, result);
  return rows.every((row) => offsOf(row).every((off) => Math.abs(off) <= MOST_OFF)) ? 0 : 1;
}

const HEAD = [
  "feed",
  "largest, predicted",
  "reported",
  "off by",
  "clear, predicted",
  "reported",
  "off by",
  "disk",
];

const offsOf = ({ predicted, measured }: PlanRow): number[] => [
  measured.largest / predicted.largest - 1,
  measured.clearedAt / predicted.clearedAt - 1,
];

function rowOf(row: PlanRow): string[] {
  const { feed, predicted, measured } = row;
  const [largest, clear] = offsOf(row).map((off) => `${(100 * off).toFixed(1)} %`);
  return [
    String(feed),
    formatBytes(predicted.largest),
    formatBytes(measured.largest),
    largest!,
    formatSeconds(predicted.clearedAt),
    formatSeconds(measured.clearedAt),
    clear!,
    formatBytes(measured.disk),
  ];
}

if (import.meta.main) await runMain("plans", main);
