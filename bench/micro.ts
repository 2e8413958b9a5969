/**
 * What single operations cost on the runtime that runs this: a read and a write through our adapter
 * against the same through the bare API, a tick of the pacer, TCP_INFO, an append to the queue.
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
import { flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { environment } from "../src/kernel/environment.ts";
import { connectionState, kernelSourceReason } from "../src/kernel/kernel.ts";
import { tcpInfo } from "../src/kernel/tcp_info.ts";
import type { Connection } from "../src/net/net.ts";
import { loadAdapter } from "../src/net/load.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { Schedule } from "../src/send/pacer.ts";
import { interrupted, print, runMain } from "../src/cli/program.ts";
import { ProgressLine } from "../src/text/progress.ts";
import type { QueueReader } from "../src/queue/queue.ts";
import { openSqliteQueue, takeBuffer } from "../src/queue/sqlite_queue.ts";
import { formatTable } from "../src/text/table.ts";
import { formatSeconds, formatSize, parseCount } from "../src/text/units.ts";
import { BARE_API, type Lane, lookedAt, openLanes } from "./micro_lanes.ts";
import { compileC } from "./readers/compile.ts";
import { median } from "../src/measure/statistics.ts";
import { formatDeviation } from "../src/text/deviation.ts";

/** Bytes of a piece, and what the adapter may cost of the bare API's time; undefined: it is told only. */
const PIECES: readonly { size: number; most?: number }[] = [
  { size: 64, most: 0.15 },
  { size: 1024 },
  { size: 65_536, most: 0.03 },
];
/** What is timed at once: in pieces of any size, so that all of the charts are to one scale. */
const MOVED = 1 << 20;
/** One side of a round is timed for about so long. */
const ROUND_MS = 30;
const BLOB = 1 << 20;
const LARGEST = 65_536;
/** By then every peer ends, whatever became of us. */
const PEER_SECONDS = 300;

const spec = {
  name: "micro",
  summary:
    `Measures what single operations cost on ${runtime}, which runs this: a read and a write\n` +
    "through our adapter against the bare API, a pacer's tick, TCP_INFO, an append to the queue.",
  usage: ["micro.ts [OPTIONS]"],
  options: {
    runs: option({
      value: "N",
      help: "rounds of each comparison",
      default: "21",
      parse: (text) => parseCount(text, { most: 1000 }),
    }),
    json: flag("prints the result as one JSON object, without mitata's charts"),
    quick: flag("three rounds and a part of the charts: no figures to keep"),
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

/** One line of the result. Times in seconds a piece. */
interface Row {
  what: "read" | "write";
  size: number;
  bare: number;
  adapter: number;
  /** What the adapter takes longer than the bare API, as a share of its time: the median of rounds. */
  cost: number;
  /** The middle half of the rounds. */
  costs: [number, number];
  most: number | null;
  met: boolean | null;
}

async function main(args: readonly string[]): Promise<void> {
  const { options } = parseCommandLine(spec, args);
  const stop = interrupted();
  const { promise, reject } = Promise.withResolvers<never>();
  // mitata cannot be stopped, and the peers are gone by then.
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
  const queue = await openSqliteQueue(join(folder, "queue.db"), { sync: "off" });
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
    const single = await openSingles(await queue.open("micro"));
    try {
      if (json) {
        const singles = await measureSingles(single, quick);
        print(JSON.stringify({
          ...{ schema: "speedlimit/micro@1", runtime, bare: BARE_API, rounds, quick },
          ...{ rows, singles, skipped: single.skipped, environment: environment() },
        }));
      } else {
        await chart(comparisons, single, quick);
        print(describe(rows, single.skipped, rounds, quick));
      }
    } finally {
      single.close();
    }
    // Nobody asks for it, and it can be left out of no loop for that.
    if (lookedAt() === 0.5) throw new Error("nothing was read");
  } finally {
    for (const { adapter, bare } of comparisons) {
      adapter.close();
      bare.close();
    }
    await queue.close();
  }
}

/** Seconds that a lane takes for so many times MOVED, each. */
async function time(lane: Lane, times: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < times; i++) await lane.move(MOVED);
  return (performance.now() - start) / 1000 / times;
}

/** Rounds in which both take their turn, the one and the other first; the median of their ratios. */
async function compare(
  { direction, size, most, adapter, bare }: Comparison,
  rounds: number,
  quick: boolean,
): Promise<Row> {
  const lanes = { adapter, bare };
  const times = { adapter: [] as number[], bare: [] as number[] };
  // The compilers have seen both before either counts.
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

/** What is not compared with anything. */
interface Singles {
  benches: { name: string; run: () => unknown }[];
  /** What cannot be measured here, and why. */
  skipped: { what: string; why: string }[];
  close: () => void;
}

async function openSingles(reader: QueueReader): Promise<Singles> {
  const benches: Singles["benches"] = [];
  const skipped: Singles["skipped"] = [];
  const schedule = new Schedule(1e6, performance.now());
  benches.push({
    name: "pacer: a tick's clock and what is due",
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
    name: "kernel: the state of both ends",
    run: () => connectionState(local, remote),
  });

  const source = new Uint8Array(BLOB).fill(65);
  benches.push({
    name: "queue: append 1 MiB, --sync off",
    async run() {
      const bytes = takeBuffer(BLOB);
      bytes.set(source);
      const offset = reader.tail;
      await reader.append({ offset, bytes, messages: 1, position: offset });
      reader.release(offset + BLOB, offset + BLOB);
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

/** What each of them takes, by mitata's own loop: seconds. */
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
  // What it does before each by default is to allocate 1 GiB where there is no gc() to call.
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
  for (const { name, run } of benches) add(name, run);
  await run({ throw: true, colors: Boolean(process.stdout.isTTY), print });
}

const HEAD = [
  "what",
  "size",
  "bare",
  "adapter",
  "adapter's cost",
  "middle half",
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
    met === null ? "" : met ? "met" : `missed by ${((cost - most!) * 100).toFixed(1)} points`,
  ]);
  const { cpu, cores, kernel, runtime: version, date } = environment();
  return `\na piece through our adapter against ${BARE_API}:\n${formatTable([HEAD, ...lines])}\n` +
    `median of ${rounds} rounds of both${quick ? "; quick: no figures to keep" : ""}\n` +
    skipped.map(({ what, why }) => `not measured: ${what}: ${why}\n`).join("") +
    `${version}; ${cores} x ${cpu}, ${kernel}; ${date}`;
}

if (import.meta.main) await runMain("micro", main);
