/**
 * Room: shows results as a table, as curves in text, SVG or an HTML page, and compares two files.
 * In: result files of the benchmark (`readBench`) and of `limit --json`, or results in memory.
 * Out: `Results`, the form that all of these read, made in this file; each format has a file.
 */
import { readFileSync } from "node:fs";
import { printable } from "../text/printable.ts";
import { formatBytes, formatSeconds, formatSize } from "../text/units.ts";
import type { Environment } from "../kernel/environment.ts";
import {
  CONFIRMED,
  highestKeptUp,
  LIMIT_SCHEMA,
  type LimitResult,
  LIMITS_SCHEMA,
} from "../measure/limit_result.ts";
import type { SeriesAround } from "../measure/series.ts";
import { readBench } from "./bench_file.ts";
import {
  BENCH_SCHEMA,
  type BenchCell,
  type BenchLatency,
  type BenchResult,
  type BenchRow,
  type ReaderFigures,
  type SenderFigures,
} from "./bench_result.ts";
import { MAP_SCHEMA, type MapResult } from "../burst/map_result.ts";
import { type Curve, curveOf } from "./curve.ts";
import type { Machine } from "./machine.ts";
import { parseResult } from "./schema_1.ts";
import { benchReaderStyle, type ReaderStyle, styleByIndex } from "./styles.ts";

/** Bytes a second. */
export interface Interval {
  lower: number;
  upper: number;
}

/** A measured limit or rate: an interval, or with `atLeast` only a lower bound (`lower`). */
export interface RateEstimate extends Interval {
  middle: number;
  atLeast: boolean;
}

export interface ReaderReport {
  /** Identifies the reader: the same in all files with results of it. */
  key: string;
  name: string;
  /** The size of a message; bytes. */
  size: number;
  style: ReaderStyle;
  limit: RateEstimate | null;
  /** The limit that each counted run found. */
  runs: Interval[];
  /** The requested precision of each run: upper / lower - 1. */
  precision: number;
  overload: LimitResult["overload"];
  recovery: LimitResult["recovery"];
  /** One line on an outcome other than a confirmed limit. */
  note?: string;
  curve: Curve;
  series?: SeriesAround;
  /**
   * By offered rate; `share` is that rate as a share of the limit, null where the limit is unknown.
   */
  latency?: (BenchLatency & { share: number | null })[];
}

export interface SenderReport {
  key: string;
  name: string;
  size: number;
  rate: RateEstimate | null;
  /** The rate of each counted run, bytes a second. */
  runs: number[];
  note?: string;
}

/** The results of one file. */
export interface Results {
  title: string;
  /** The command that repeats them. */
  command: string;
  /** When they were measured: ISO 8601, UTC. */
  date: string;
  /** The machine; two results can only be compared where this is equal. */
  machine: Record<string, string>;
  /** Other facts about the measurement: versions, kernel settings, duration. */
  facts: Record<string, string>;
  /** Warnings to show first, such as that the results are not complete. */
  caveats: string[];
  readers: ReaderReport[];
  senders: SenderReport[];
  /** The map of a reader's bursts, where these are the results of `map`. */
  map?: MapResult;
}

/**
 * Reads a result file of the benchmark (`.json`, `.jsonl`) or the output of `limit --json` or `map --json`. Throws
 * an Error of one line where the file cannot be read, is truncated, or has another schema.
 */
export function readResults(path: string): Results {
  if (path.endsWith(".jsonl")) return fromBench(readBench(path));
  let content: Record<string, unknown>;
  try {
    content = parseResult(readFileSync(path, "utf8")) as Record<string, unknown>;
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) {
      throw new Error(`cannot read ${path}: ${(cause as Error).message}`, { cause });
    }
    throw new Error(`${path} is truncated or is not JSON`, { cause });
  }
  const schema = content?.schema;
  if (schema === BENCH_SCHEMA) return fromBench(readBench(path));
  if (schema === MAP_SCHEMA) {
    if (!isMap(content)) throw new Error(`${path} is not a result of map: it has no rates`);
    return fromMap(content);
  }
  const limits = schema === LIMIT_SCHEMA
    ? [content]
    : schema === LIMITS_SCHEMA
    ? content.results
    : undefined;
  if (limits === undefined) {
    const what = typeof schema === "string" ? `its schema is ${schema}` : "it has no schema";
    throw new Error(
      `${path} is not a result of bench, of limit --json or of map --json: ${what}, and must have ` +
        `${BENCH_SCHEMA}, ${LIMIT_SCHEMA}, ${LIMITS_SCHEMA} or ${MAP_SCHEMA}, or version 1 of the first ` +
        "three",
    );
  }
  if (!isLimits(limits)) throw new Error(`${path} is not a result of limit: it has no trials`);
  return fromLimits(limits, commandOf(limits));
}

function isLimits(values: unknown): values is LimitResult[] {
  return Array.isArray(values) && values.length > 0 &&
    values.every((each) => Array.isArray(each?.trials) && typeof each.environment === "object");
}

/** A command line that repeats a saved result, with the options that the result contains. */
function commandOf(results: readonly LimitResult[]): string {
  const { reader, messageSize, precision, readers } = results[0]!;
  const options = [
    ...(messageSize === 13 ? [] : [`--size ${formatSize(messageSize)}`]),
    ...(precision === 0.01 ? [] : [`--precision ${precision}`]),
    ...(readers === 1 ? [] : [`--readers ${readers}`]),
  ];
  if (reader === "attached") options.push("--attach");
  else if (!reader.startsWith("client --mode ")) options.push(`-- ${reader}`);
  return ["deno task limit", ...options].join(" ");
}

function isMap(value: unknown): value is MapResult {
  const { rates, environment } = value as Partial<MapResult>;
  return Array.isArray(rates) && rates.length > 0 && typeof environment === "object" &&
    rates.every(({ chances }) => Array.isArray(chances) && chances.length > 0);
}

/** Makes `Results` from a map. */
export function fromMap(given: MapResult): Results {
  const map = {
    ...given,
    reader: printable(given.reader),
    message: printable(given.message),
  };
  const { environment, reader, limit, messageSize, seconds, interrupted } = map;
  return {
    title: `The bursts that ${reader} survives`,
    command: `deno task map --limit ${Math.round(limit)}B/s --size ${messageSize} -- ${reader}`,
    date: environment.date,
    machine: machineFacts(environment),
    facts: {
      ...kernelFacts(environment),
      server: environment.runtime,
      took: formatSeconds(seconds),
    },
    caveats: interrupted ? ["the measurement was interrupted"] : [],
    readers: [],
    senders: [],
    map,
  };
}

/** Makes `Results` from results of `limit` and the command line that produced them. */
export function fromLimits(results: readonly LimitResult[], command: string): Results {
  const { environment } = results[0]!;
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0);
  const caveats = results.some(({ interrupted }) => interrupted)
    ? ["the search was interrupted"]
    : [];
  return {
    title: results.length === 1 ? `The speed limit of ${nameOf(results[0]!)}` : "Speed limits",
    command,
    date: environment.date,
    machine: machineFacts(environment),
    facts: {
      ...kernelFacts(environment),
      server: environment.runtime,
      "receive queue": results.map(({ queueSource }) => queueSource)
        .filter((each, i, all) => all.indexOf(each) === i).join(", "),
      took: formatSeconds(seconds),
    },
    caveats,
    readers: results.map((result, i): ReaderReport => ({
      key: `reader ${keyOf(result)} ${result.messageSize}`,
      name: nameOf(result),
      size: result.messageSize,
      style: styleByIndex(i),
      limit: estimateOf(result),
      runs: result.limit === null ? [] : [result.limit],
      precision: result.precision,
      overload: result.overload,
      recovery: result.recovery,
      ...noteOf(result.outcome, result.message),
      curve: curveOf(result),
      ...(result.series === undefined ? {} : { series: result.series }),
    })),
    senders: [],
  };
}

const nameOf = ({ reader, readers }: LimitResult) =>
  readers === 1 ? reader : `${readers} x ${reader}`;

/** Without the runtime's version, so that our own reader can be compared between versions. */
const keyOf = (result: LimitResult) =>
  nameOf(result).replace(/(client --mode \w+, \w+) \d[\w.+-]*$/, "$1");

function estimateOf({ limit, outcome, trials }: LimitResult): RateEstimate | null {
  if (limit !== null) {
    return { ...limit, middle: (limit.lower + limit.upper) / 2, atLeast: false };
  }
  const keepsUpAt = highestKeptUp(trials);
  const limited = outcome === "generator-limited" || outcome === "path-limited";
  if (!limited || keepsUpAt === 0) return null;
  return { lower: keepsUpAt, upper: keepsUpAt, middle: keepsUpAt, atLeast: true };
}

/** No note where the limit was found as precisely as requested. */
function noteOf(outcome: LimitResult["outcome"], message: string): { note?: string } {
  return message === CONFIRMED ? {} : { note: `${outcome}: ${message}` };
}

/** Makes `Results` from a result of the benchmark. */
export function fromBench(result: BenchResult): Results {
  const { machine, rows } = result;
  const caveats = [
    ...(result.complete
      ? []
      : ["the benchmark was interrupted: some cells are missing or have fewer runs"]),
    ...(result.quick ? ["this is a quick run, which is less precise than a full one"] : []),
    ...result.skipped.map(({ cell, why }) => `${cellName(cell)}: not measured (${why})`),
  ];
  const programs = rows.map(({ cell }) => cell.who).filter((who, i, all) => all.indexOf(who) === i);
  return {
    title: "Speed limits of TCP readers",
    command: result.command,
    date: machine.date,
    machine: machineFacts(machine),
    facts: {
      ...kernelFacts(machine),
      ...machine.runtimes,
      ...result.programs,
      server: result.generator.runtime,
      "load before": machine.loadBefore.toFixed(1),
      runs: `${result.runs} of each cell, after ${result.warmUps} warm-up runs`,
      took: formatSeconds(result.seconds),
    },
    caveats,
    readers: rows.flatMap((row) =>
      row.cell.kind === "reader" ? [readerOf(row, row.cell, result.precision, programs)] : []
    ),
    senders: rows.flatMap(({ cell, runs, rate }) => {
      if (cell.kind === "reader") return [];
      const own = runs.filter((run): run is SenderFigures => "bytesPerSecond" in run);
      return [{
        key: cellKey(cell),
        name: cell.kind === "control" ? "control: C to C" : cell.who,
        size: cell.size,
        rate: rate && estimateFrom(rate),
        runs: own.map(({ bytesPerSecond }) => bytesPerSecond),
        ...failureOf(runs),
      }];
    }),
  };
}

type ReaderCell = Extract<BenchCell, { kind: "reader" }>;

function readerOf(
  { cell, runs, rate, overload, recovery }: BenchRow,
  { who, mode, size }: ReaderCell,
  precision: number,
  programs: readonly string[],
): ReaderReport {
  const searched = runs.filter((run): run is ReaderFigures => "trials" in run);
  const shown = medianRun(searched);
  const series = searched.find((run) => run.series !== undefined)?.series;
  const withLatency = searched.find((run) => run.latency !== undefined);
  const notFound = searched.find(({ outcome }) => outcome !== "found");
  return {
    key: cellKey(cell),
    name: `${who} ${mode}`,
    size,
    style: benchReaderStyle(who, mode, programs),
    limit: rate && estimateFrom(rate),
    runs: searched.flatMap(({ limit }) => limit === null ? [] : [limit]),
    precision,
    overload: overload ?? null,
    recovery: recovery ?? null,
    ...failureOf(runs),
    ...(notFound === undefined ? {} : noteOf(notFound.outcome, notFound.message)),
    curve: shown === undefined ? { points: [], line: [] } : curveOf(shown),
    ...(series === undefined ? {} : { series }),
    ...(withLatency === undefined ? {} : {
      latency: withLatency.latency!.map((each) => ({
        ...each,
        share: withLatency.limit &&
          each.rate / ((withLatency.limit.lower + withLatency.limit.upper) / 2),
      })),
    }),
  };
}

/** The run with the median limit: the points of several runs together would blur the curve. */
function medianRun(runs: readonly ReaderFigures[]): ReaderFigures | undefined {
  const found = runs.filter(({ limit }) => limit !== null)
    .toSorted((a, b) => a.limit!.lower - b.limit!.lower);
  return found[(found.length - 1) >> 1] ?? runs[0];
}

function estimateFrom(
  { median, min, max, atLeast = false }: NonNullable<BenchRow["rate"]>,
): RateEstimate {
  return { lower: min, upper: max, middle: median, atLeast };
}

function failureOf(runs: BenchRow["runs"]): { note?: string } {
  const failed = runs.flatMap((run) => "failed" in run ? [run.failed] : []);
  if (failed.length === 0) return {};
  return { note: `${failed.length} of ${runs.length} runs failed: ${failed[0]}` };
}

const cellKey = (cell: BenchCell) =>
  [cell.kind, cell.who, ..."mode" in cell ? [cell.mode] : [], cell.size].join(" ");

/** `deno drain, 13 B messages` */
function cellName(cell: BenchCell): string {
  const mode = "mode" in cell ? ` ${cell.mode}` : "";
  return `${cell.who}${mode}, ${formatMessageSize(cell.size)} messages`;
}

/** One line: machine, kernel and date of the measurement. */
export function captionOf({ machine, date }: Results): string {
  return `${machine.processor}, ${machine.kernel}, ${machine["congestion control"]}; ${
    date.slice(0, 10)
  }`;
}

/** The size of a message: `13 B`, `64 KiB`. */
export function formatMessageSize(bytes: number): string {
  return formatSize(bytes)
    .replace(/\d$/, "$& B")
    .replace(/[kMG]$/, (prefix) => ` ${prefix.toUpperCase()}iB`);
}

type Measured = Pick<
  Environment,
  "cpu" | "cores" | "memory" | "kernel" | "congestionControl" | "tcpRmem" | "tcpWmem"
>;

function machineFacts({ cpu, cores, memory, kernel, congestionControl }: Measured) {
  return {
    processor: `${cores} x ${cpu}`,
    memory: formatBytes(memory),
    kernel,
    "congestion control": congestionControl ?? "unknown",
  };
}

function kernelFacts({ tcpRmem, tcpWmem }: Measured | Machine): Record<string, string> {
  return {
    ...(tcpRmem === undefined ? {} : { tcp_rmem: tcpRmem.join(" ") }),
    ...(tcpWmem === undefined ? {} : { tcp_wmem: tcpWmem.join(" ") }),
  };
}
