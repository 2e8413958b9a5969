/**
 * The cross-runtime benchmark: measures the speed limits of the article's two readers on Deno, Bun
 * and Node, in Python and in C, and how fast each runtime sends.
 *
 *     npm run bench -- --quick
 *     deno task bench --readers deno,bun --size 13,1k,64k --out results/
 *
 * At the end of each run it appends the result to a file, which `--resume` continues; at the end of
 * the benchmark it writes everything to latest.json. docs/results.md describes these files.
 */
import { randomUUID } from "node:crypto";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ProgressLine } from "../src/text/progress.ts";
import { formatSize, parseBytes, parseCount, parseFraction, UnitError } from "../src/text/units.ts";
import { environment } from "../src/kernel/environment.ts";
import { kernelSource, kernelSourceReason } from "../src/kernel/kernel.ts";
import { assemble, BenchWriter, readBenchLines } from "../src/report/bench_file.ts";
import {
  BENCH_SCHEMA,
  type BenchEnd,
  type BenchHeader,
  type BenchRun,
} from "../src/report/bench_result.ts";
import { flag, option, parseCommandLine, UsageError } from "../src/cli/command_line.ts";
import { interrupted, printLine, runMain } from "../src/cli/program.ts";
import {
  findInstalled,
  type Installed,
  listCells,
  nameCell,
  type Reader,
  READERS,
  type Sender,
  SENDERS,
  whySkipped,
} from "./bench_cells.ts";
import { measureRuns } from "./bench_rounds.ts";
import { formatBench } from "./bench_table.ts";
import { describeMachine } from "./rows.ts";

/** Largest message size: a slow reader would take too long for a larger one. Bytes. */
const LARGEST = 1 << 20;
const QUICK_SIZES = [13, 65_536];
const SIZES = [13, 1024, 65_536];
const RUNS = 3;
const PRECISION = { quick: 0.05, full: 0.02 };

const spec = {
  name: "bench",
  summary: "Measures the article's two readers on every runtime, in Python and in C, and the\n" +
    "flood of every runtime. Programs that are not installed are skipped. An estimate\n" +
    "of the duration is printed first.",
  usage: ["bench [OPTIONS]", "bench --quick", "bench --resume [--out DIR]"],
  options: {
    readers: option({
      value: "LIST",
      help: `readers to measure: some of ${READERS.join(",")}, or none`,
      default: READERS.join(),
      parse: (text): Reader[] => parseList(text, READERS),
    }),
    senders: option({
      value: "LIST",
      help: `senders to measure: some of ${SENDERS.join(",")}, or none`,
      default: SENDERS.join(),
      parse: (text): Sender[] => parseList(text, SENDERS),
    }),
    size: option({
      value: "LIST",
      help: `message sizes in bytes (default ${list(SIZES)}; with --quick ` +
        `${list(QUICK_SIZES)}, readers only the first)`,
      parse: parseSizes,
    }),
    runs: option({
      value: "N",
      help: "searches of each reader; floods are run twice as often",
      default: String(RUNS),
      parse: (text) => parseCount(text, { most: 100 }),
    }),
    precision: option({
      value: "SHARE",
      help: "width of a limit's interval, as a share (default 2%; with --quick 5%)",
      parse: (text) => parseFraction(text, { least: 0.002, most: 0.5 }),
    }),
    quick: flag("shorter trials and fewer sizes: takes less than five minutes"),
    out: option({
      value: "DIR",
      help: "folder for the result files",
      default: "results",
      parse: parseFolder,
    }),
    resume: flag("continues the newest file in DIR, which must not be complete"),
    json: flag("prints the result as one JSON object"),
  },
};

function list(sizes: readonly number[]): string {
  return sizes.map(formatSize).join();
}

/**
 * Parses a list; the result has no duplicates and is in the order of `known`. Throws a UnitError.
 */
function parseList<T extends string>(text: string, known: readonly T[]): T[] {
  if (text.trim() === "none") return [];
  const words = text.split(",").map((word) => word.trim());
  const wrong = words.find((word) => !known.some((each) => each === word));
  if (wrong === undefined) return known.filter((word) => words.includes(word));
  throw new UnitError(
    `must be some of ${known.join(",")}, or none; ${JSON.stringify(wrong)} is not`,
  );
}

function parseSizes(text: string): number[] {
  const sizes = text.split(",").map((word) => {
    try {
      return parseBytes(word, { most: LARGEST });
    } catch (error) {
      if (!(error instanceof UnitError)) throw error;
      throw new UnitError(`must be sizes such as 13,1k,64k: each ${error.message}`);
    }
  });
  return [...new Set(sizes)].sort((a, b) => a - b);
}

/** Makes the folder if it does not exist, so that a problem shows before the benchmark. */
function parseFolder(text: string): string {
  try {
    mkdirSync(text, { recursive: true });
  } catch (error) {
    throw new UnitError(`must be a folder that can be written to: ${(error as Error).message}`);
  }
  return text;
}

type Options = ReturnType<typeof parseOptions>["options"];

function parseOptions(args: readonly string[]) {
  const { options, given } = parseCommandLine(spec, args);
  if (options.resume) {
    const other = [...given].find((name) => !["resume", "out", "json"].includes(name));
    if (other !== undefined) {
      throw new UsageError(
        `--resume keeps the options of the first start: --${other} cannot be combined with it`,
      );
    }
  }
  if (options.readers.length === 0 && options.senders.length === 0) {
    throw new UsageError("--readers none and --senders none leave nothing to measure");
  }
  return { options, given };
}

/** A benchmark that is started or resumed. */
interface Bench {
  header: BenchHeader;
  runs: BenchRun[];
  writer: BenchWriter;
  installed: Installed;
}

async function startBench(options: Options): Promise<Bench> {
  const { readers, senders, quick, out, runs } = options;
  const sizes = options.size ?? (quick ? QUICK_SIZES : SIZES);
  const precision = options.precision ?? (quick ? PRECISION.quick : PRECISION.full);
  const all = listCells({
    readers,
    senders,
    // The message size hardly affects a reader of a stream: it affects how the sender writes.
    readerSizes: quick && options.size === undefined ? sizes.slice(0, 1) : sizes,
    senderSizes: senders.length === 0 ? [] : sizes,
  });
  const installed = await findInstalled(all);
  const skipped = all.flatMap((cell) => {
    const why = whySkipped(cell, installed);
    return why === undefined ? [] : [{ cell, why }];
  });
  const { runtime } = environment();
  const header: BenchHeader = {
    type: "header",
    schema: BENCH_SCHEMA,
    id: randomUUID(),
    machine: { ...await describeMachine([]), runtimes: installed.runtimes },
    generator: { runtime, kernelSource },
    programs: installed.programs,
    command: [
      "npm run bench --",
      ...(quick ? ["--quick"] : []),
      `--readers ${readers.join() || "none"}`,
      `--senders ${senders.join() || "none"}`,
      ...(options.size === undefined ? [] : [`--size ${list(sizes)}`]),
      `--runs ${runs}`,
      `--precision ${precision}`,
    ].join(" "),
    quick,
    precision,
    runs,
    warmUps: 1,
    cells: all.filter((cell) => whySkipped(cell, installed) === undefined),
    skipped,
  };
  const stamp = header.machine.date.replace(/[-:]|\.\d+/g, "");
  const writer = new BenchWriter(join(out, `bench-${stamp}-${header.id.slice(0, 8)}.jsonl`));
  writer.append(header);
  return { header, runs: [], writer, installed };
}

async function resumeBench({ out }: Options): Promise<Bench> {
  const files = readdirSync(out).filter((name) => /^bench-.*\.jsonl$/.test(name)).sort();
  const newest = files.at(-1);
  if (newest === undefined) throw new Error(`nothing to resume: no bench-*.jsonl in ${out}`);
  const path = join(out, newest);
  const { header, runs, end, goodBytes } = readBenchLines(path);
  if (end !== undefined) throw new Error(`nothing to resume: ${path} is complete`);
  const installed = await findInstalled(header.cells);
  const { machine } = header;
  const now = { ...await describeMachine([]), runtimes: installed.runtimes };
  for (const name of ["cpu", "cores", "kernel", "runtimes"] as const) {
    const [was, is] = [machine[name], now[name]].map((value) => JSON.stringify(value));
    if (was !== is) {
      throw new Error(`cannot resume ${path}: its ${name} was ${was} and is now ${is}`);
    }
  }
  const { runtime } = environment();
  if (runtime !== header.generator.runtime) {
    throw new Error(`cannot resume ${path}: it was started on ${header.generator.runtime}`);
  }
  return { header, runs, writer: new BenchWriter(path, goodBytes), installed };
}

/** Runs the command and returns its exit status. */
export async function main(args: readonly string[]): Promise<number> {
  const { options } = parseOptions(args);
  if (kernelSource === "none") {
    throw new Error(`cannot measure a reader here: ${kernelSourceReason ?? "no kernel figures"}`);
  }
  interrupted();
  const bench = options.resume ? await resumeBench(options) : await startBench(options);
  const { header, runs, writer, installed } = bench;
  const progress = new ProgressLine();
  for (const { cell, why } of header.skipped) {
    progress.line(`skipped: ${nameCell(cell)}: ${why}`);
  }
  const complete = await measureRuns({ header, runs, writer, installed, progress });
  progress.end();
  let end: BenchEnd | undefined;
  if (complete) {
    const seconds = runs.reduce((sum, run) => sum + run.seconds, 0);
    end = { type: "end", date: new Date().toISOString(), seconds };
    writer.append(end);
  }
  writer.close();
  if (!complete) {
    progress.line(`interrupted: bench --resume --out ${options.out} continues ${writer.path}`);
    return 130;
  }
  const result = assemble(header, runs, end);
  const latest = join(options.out, "latest.json");
  writeFileSync(latest, `${JSON.stringify(result)}\n`);
  printLine(options.json ? JSON.stringify(result) : formatBench(result));
  progress.line(`written: ${latest} (the result) and ${writer.path} (each run)`);
  return result.rows.every(({ rate }) => rate !== null) ? 0 : 1;
}

if (import.meta.main) await runMain("bench", main);
