/**
 * Measures what --unread auto costs a reader that does not get slower the more there is to read.
 *
 *     npx node --no-warnings bench/unread.ts --out bench/results/unread.json
 */
import { choice, option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median } from "../src/measure/statistics.ts";
import { formatMachine } from "../src/report/machine.ts";
import { formatTable } from "../src/text/table.ts";
import { formatByteRate, parseCount } from "../src/text/units.ts";
import { Program, RUNTIMES } from "./programs.ts";
import { compileC } from "./readers/compile.ts";
import { describeMachine, writeResult } from "./rows.ts";
import { figure, metricsOf } from "./server_figures.ts";
import { pause } from "./spill_disk.ts";
import { ServerRun } from "./spill_server.ts";

const spec = {
  name: "unread",
  summary: "Floods readers with a known limit, and the fastest drain in C, with\n" +
    "--unread auto and without, in pairs, and compares what they take. Runs on Node.",
  usage: ["unread.ts [OPTIONS]"],
  options: {
    runtime: choice({
      help: "the runtime of the server",
      choices: ["all", ...RUNTIMES] as const,
      default: "all",
    }),
    pairs: option({
      value: "N",
      help: "number of pairs of runs",
      default: "3",
      parse: (text) => parseCount(text, { most: 100 }),
    }),
    out: option({ value: "FILE.json", help: "writes the result", parse: parseOutFile }),
  },
};

/** Limits of bench/readers/paced.c; undefined: the drain of bench/peers/peer.c. Bytes a second. */
const LIMITS = [1e6, 10e6, 100e6, 1e9, undefined];
const TARGET = { paced: 0.97, fastest: 0.9 };
const SIZE = 1000;
const WARM_UP_MS = 1500;
const MEASURED_MS = 3000;

export interface CostRow {
  runtime: Runtime;
  /** Null: as fast as it can. */
  limit: number | null;
  /** Of each pair: bytes a second with it and without. */
  pairs: { withIt: number; without: number }[];
  /** The median of what it takes with it by what it takes without. */
  ratio: number;
  target: number;
}

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const runtimes = options.runtime === "all" ? RUNTIMES : [options.runtime];
  const machine = await describeMachine(runtimes);
  const paced = await compileC(new URL("readers/paced.c", import.meta.url));
  const fastest = await compileC(new URL("peers/peer.c", import.meta.url));
  const rows: CostRow[] = [];
  for (const runtime of runtimes) {
    for (const limit of LIMITS) {
      const reader = (port: string) =>
        limit === undefined
          ? [fastest, "drain", "127.0.0.1", port, "65536"]
          : [paced, "127.0.0.1", port, String(limit)];
      const pairs: CostRow["pairs"] = [];
      for (let i = 0; i < options.pairs; i++) {
        const withIt = await rateOf(runtime, reader, ["--unread", "auto"]);
        pairs.push({ withIt, without: await rateOf(runtime, reader, []) });
      }
      const ratio = median(pairs.map(({ withIt, without }) => withIt / without));
      const target = limit === undefined ? TARGET.fastest : TARGET.paced;
      rows.push({ runtime, limit: limit ?? null, pairs, ratio, target });
      printLine(formatTable([formatCostRow(rows.at(-1)!)]));
    }
  }
  printLine(formatTable([[...COST_HEAD], ...rows.map(formatCostRow)]));
  printLine(formatMachine(machine));
  const result = { schema: "speedlimit/unread@1", environment: machine, rows };
  if (options.out !== undefined) writeResult(options.out, result);
  return rows.every(({ ratio, target }) => ratio >= target) ? 0 : 1;
}

/** What the reader takes; bytes a second. */
async function rateOf(
  runtime: Runtime,
  reader: (port: string) => readonly string[],
  unread: readonly string[],
): Promise<number> {
  const server = await ServerRun.start(runtime, 60, [
    ...["--rate", "max", "--size", String(SIZE), "--overflow", "block", "--metrics", "0"],
    ...unread,
  ]);
  const program = new Program(reader(server.port), { seconds: 60 });
  try {
    const url = await metricsOf(server);
    const accepted = () => figure(url, "speedlimit_reader_accepted_bytes_total");
    await pause(WARM_UP_MS);
    const [from, sinceMs] = [await accepted(), performance.now()];
    await pause(MEASURED_MS);
    return (await accepted() - from) / (performance.now() - sinceMs) * 1000;
  } finally {
    program.kill();
    await server.kill();
  }
}

export const COST_HEAD: readonly string[] = [
  "runtime",
  "reader",
  "with --unread auto",
  "without",
  "ratio",
  "target",
];

export const formatCostRow = ({ runtime, limit, pairs, ratio, target }: CostRow): string[] => [
  runtime,
  limit === null ? "peer.c drain, 64 KiB a read" : `paced.c, ${formatByteRate(limit)}`,
  formatByteRate(median(pairs.map(({ withIt }) => withIt))),
  formatByteRate(median(pairs.map(({ without }) => without))),
  ratio.toFixed(3),
  `at least ${target}`,
];

if (import.meta.main) await runMain("unread", main);
