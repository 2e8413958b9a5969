/**
 * Measures the cost of single operations on the current runtime: a read and a write through our
 * adapter compared with the runtime's own API, a tick of the pacer, TCP_INFO, a reading of the meter,
 * an append to the queue.
 *
 *     deno task micro
 *     bun run micro
 *     npm run micro
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { bench, boxplot, group, measure, run, summary } from "mitata";
import { formatDeviation } from "../src/text/deviation.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { formatTable } from "../src/text/table.ts";
import { formatSeconds, formatSize, parseCount } from "../src/text/units.ts";
import { environment } from "../src/kernel/environment.ts";
import { connectionState, kernelSourceReason } from "../src/kernel/kernel.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { tcpInfo } from "../src/kernel/tcp_info.ts";
import { loadAdapter } from "../src/net/load.ts";
import type { Connection } from "../src/net/net.ts";
import { textMessage } from "../src/message/message.ts";
import { Flood } from "../src/send/flood.ts";
import { Schedule, Ticker } from "../src/send/pacer.ts";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import type { Log } from "../src/queue/queue.ts";
import { Meter } from "../src/measure/meter.ts";
import { median } from "../src/measure/statistics.ts";
import { flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { interrupted, printLine, runMain } from "../src/cli/program.ts";
import { BARE_API, checksum, type Lane, openLanes } from "./micro_lanes.ts";
import { compileC } from "./readers/compile.ts";

/**
 * Sizes of a read or write in bytes, and the most that the adapter may cost, as a share of the
 * runtime API's time; undefined: no target.
 */
const PIECES: readonly { size: number; most?: number }[] = [
  { size: 64, most: 0.15 },
  { size: 1024 },
  { size: 65_536, most: 0.03 },
];
/** Bytes of one timed operation for every piece size, so that all charts have the same scale. */
const MOVED = 1 << 20;
/** Approximate duration of one side of a round. */
const ROUND_MS = 30;
/** Bytes of an append to the queue. */
const APPEND_SIZE = 1 << 20;
/** Appends after which what is delivered is deleted: a segment. */
const SETTLE_EVERY = 64;
/** The only piece size in the charts of a quick run. Bytes. */
const LARGEST = 65_536;
/** Deadline of every peer, in case this process hangs or is killed. */
const PEER_SECONDS = 300;

const spec = {
  name: "micro",
  summary:
    `Measures the cost of single operations on ${runtime}: a read and a write through our\n` +
    "adapter compared with the runtime's own API, a tick of the pacer, TCP_INFO, a\n" +
    "reading of the meter, and an append to the queue.",
  usage: ["micro.ts [OPTIONS]"],
  options: {
    runs: option({
      value: "N",
      help: "rounds of each comparison",
      default: "21",
      parse: (text) => parseCount(text, { most: 1000 }),
    }),
    json: flag("prints the result as one JSON object, without mitata's charts"),
    quick: flag("only three rounds and some of the charts, to try the benchmark itself"),
  },
};

/** A read or a write of one size. */
interface Comparison {
  direction: "read" | "write";
  size: number;
  most: number | undefined;
  adapter: Lane;
  bare: Lane;
}

/** One row of the result. Times in seconds for one piece. */
interface Row {
  what: "read" | "write";
  size: number;
  bare: number;
  adapter: number;
  /** Extra time of the adapter as a share of the runtime API's time: the median of the rounds. */
  cost: number;
  /** First and third quartile of the rounds. */
  costs: [number, number];
  most: number | null;
  met: boolean | null;
}

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const stop = interrupted();
  const { promise, reject } = Promise.withResolvers<never>();
  // mitata cannot be stopped, and the peers have been killed by then.
  stop.addEventListener("abort", () => reject(new DOMException("interrupted", "AbortError")));
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-micro-"));
  try {
    await Promise.race([promise, measureAll(folder, options)]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureAll(
  folder: string,
  options: { runs: number; json: boolean; quick: boolean },
): Promise<void> {
  const { json, quick } = options;
  const rounds = quick ? 3 : options.runs;
  const progress = new ProgressLine();
  const comparisons: Comparison[] = [];
  const queue = await openDiskQueue(join(folder, "queue"), { sync: "off" });
  try {
    const peer = await compileC(new URL("peers/peer.c", import.meta.url));
    for (const direction of ["write", "read"] as const) {
      for (const { size, most } of PIECES) {
        const lanes = await openLanes({ direction, size, peer, seconds: PEER_SECONDS });
        comparisons.push({ direction, size, most, ...lanes });
      }
    }
    const rows: Row[] = [];
    for (const comparison of comparisons) {
      const { direction, size } = comparison;
      progress.update(`${direction} ${formatSize(size)}: ${rounds} rounds`);
      rows.push(await compare(comparison, rounds, quick));
    }
    progress.end();
    const single = await openSingles(await queue.openLog(""));
    try {
      if (json) {
        const singles = await measureSingles(single, quick);
        printLine(JSON.stringify({
          ...{ schema: "speedlimit/micro@1", runtime, bare: BARE_API, rounds, quick },
          ...{ rows, singles, skipped: single.skipped, environment: environment() },
        }));
      } else {
        await chart(comparisons, single, quick);
        printLine(describe(rows, single.skipped, rounds, quick));
      }
    } finally {
      single.close();
    }
    // Uses the checksum, so that no compiler can optimize the reads away.
    if (checksum() === 0.5) throw new Error("nothing was read");
  } finally {
    for (const { adapter, bare } of comparisons) {
      adapter.close();
      bare.close();
    }
    await queue.close();
  }
}

/** Mean seconds that a lane takes to move MOVED bytes, over `times` repetitions. */
async function time(lane: Lane, times: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < times; i++) await lane.move(MOVED);
  return (performance.now() - start) / 1000 / times;
}

/** Compares both sides in rounds that alternate which side is first. */
async function compare(
  { direction, size, most, adapter, bare }: Comparison,
  rounds: number,
  quick: boolean,
): Promise<Row> {
  const lanes = { adapter, bare };
  const times = { adapter: [] as number[], bare: [] as number[] };
  // Warm-up: the JIT compilers compile both sides before either is timed.
  for (let i = 0; i < (quick ? 1 : 3); i++) await time(adapter, 2) + await time(bare, 2);
  const once = (await time(adapter, 1) + await time(bare, 1)) / 2;
  const repeats = Math.max(1, Math.round(ROUND_MS / 1000 / once));
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? ["adapter", "bare"] as const : ["bare", "adapter"] as const;
    for (const which of order) times[which].push(await time(lanes[which], repeats));
  }
  const costs = times.adapter.map((seconds, i) => seconds / times.bare[i]! - 1);
  const sorted = costs.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))]!;
  const cost = median(costs);
  const pieces = MOVED / size;
  return {
    what: direction,
    size,
    bare: median(times.bare) / pieces,
    adapter: median(times.adapter) / pieces,
    cost,
    costs: [at(0.25), at(0.75)],
    most: most ?? null,
    met: most === undefined ? null : cost <= most,
  };
}

/** Operations that are measured without a comparison. */
interface Singles {
  benches: { name: string; run: () => unknown }[];
  /** Operations that cannot be measured here, and the reasons. */
  skipped: { what: string; why: string }[];
  close: () => void;
}

async function openSingles(log: Log): Promise<Singles> {
  const benches: Singles["benches"] = [];
  const skipped: Singles["skipped"] = [];
  const schedule = new Schedule(1e6, performance.now());
  benches.push({
    name: "pacer: one tick (clock, messages due)",
    run: () => schedule.due(performance.now()),
  });

  const adapter = await loadAdapter();
  const accepted = Promise.withResolvers<Connection>();
  const onConnection = accepted.resolve;
  const listener = await adapter.listen({ host: "127.0.0.1", port: 0, onConnection });
  const near = await adapter.connect(listener.address);
  const far = await accepted.promise;
  await listener.close();
  const { fd, local, remote } = far;
  if (fd !== undefined && tcpInfo(fd) !== undefined) {
    benches.push({ name: "kernel: TCP_INFO of a socket", run: () => tcpInfo(fd) });
  } else {
    const why = kernelSourceReason ?? "no descriptor";
    skipped.push({ what: "kernel: TCP_INFO of a socket", why });
  }
  benches.push({
    name: "kernel: the state of both ends, looked up once",
    run: () => connectionState(local, remote),
  });
  const flood = new Flood({
    connection: far,
    message: textMessage("tick\n"),
    ticker: new Ticker(),
  });
  const meter = new Meter(flood);
  benches.push({ name: "meter: what a reader has drained", run: () => meter.readDrained() });
  benches.push({ name: "meter: the same, and both ends", run: () => meter.read() });

  const bytes = new Uint8Array(APPEND_SIZE).fill(65);
  const cursor = await log.openCursor("micro", log.end);
  let appends = 0;
  benches.push({
    name: "queue: append 1 MiB, --sync off",
    async run() {
      await log.append({ offset: log.end, bytes, messages: 1 });
      cursor.release(log.end);
      // Deletes what is delivered.
      if (++appends % SETTLE_EVERY === 0) await log.settled();
    },
  });
  return {
    benches,
    skipped,
    close() {
      near.close();
      far.close();
    },
  };
}

/** Measures each operation with mitata; seconds. */
async function measureSingles(
  { benches }: Singles,
  quick: boolean,
): Promise<{ what: string; seconds: number }[]> {
  const results = [];
  for (const { name: what, run } of benches) {
    const { avg } = await measure(run, quick ? { gc: false, min_cpu_time: 20e6 } : { gc: false });
    results.push({ what, seconds: avg / 1e9 });
  }
  return results;
}

/** mitata's charts and summaries, on standard output. */
async function chart(
  comparisons: readonly Comparison[],
  { benches }: Singles,
  quick: boolean,
): Promise<void> {
  // By default, where there is no gc() to call, mitata allocates 1 GiB before each benchmark.
  const add = (name: string, run: () => unknown) => bench(name, run).gc(false);
  for (const { direction, size, adapter, bare } of comparisons) {
    if (quick && size !== LARGEST) continue;
    const name = `${direction} 1 MiB in pieces of ${formatSize(size)}`;
    group(name, () =>
      boxplot(() =>
        summary(() => {
          add(`${name}, bare`, () => bare.move(MOVED));
          add(`${name}, adapter`, () => adapter.move(MOVED));
        })
      ));
  }
  for (const { name, run } of quick ? [] : benches) add(name, run);
  await run({ throw: true, colors: Boolean(process.stdout.isTTY), print: printLine });
}

const HEAD = [
  "what",
  "size",
  "bare",
  "adapter",
  "adapter's cost",
  "quartiles",
  "most",
  "verdict",
];
const percent = (share: number) => formatDeviation(share, 1);

function describe(
  rows: readonly Row[],
  skipped: Singles["skipped"],
  rounds: number,
  quick: boolean,
): string {
  const lines = rows.map(({ what, size, bare, adapter, cost, costs, most, met }) => [
    what,
    formatSize(size),
    formatSeconds(bare),
    formatSeconds(adapter),
    percent(cost),
    costs.map(percent).join(" to "),
    most === null ? "-" : percent(most),
    met === null
      ? ""
      : met
      ? "reached"
      : `target not reached (by ${((cost - most!) * 100).toFixed(1)} points)`,
  ]);
  const { cpu, cores, kernel, runtime: version, date } = environment();
  return `\none piece through our adapter compared with ${BARE_API}:\n${
    formatTable([HEAD, ...lines])
  }\n` +
    `median of ${rounds} rounds${quick ? "; quick run: these figures are not precise" : ""}\n` +
    skipped.map(({ what, why }) => `not measured: ${what}: ${why}\n`).join("") +
    `${version}; ${cores} x ${cpu}, ${kernel}; ${date}`;
}

if (import.meta.main) await runMain("micro", main);
