/** What reports show: the results of the benchmark, or of `limit`, in one form. */
import { readFileSync } from "node:fs";
import type { Environment } from "../kernel/environment.ts";
import { LIMIT_SCHEMA, type LimitResult, LIMITS_SCHEMA } from "../measure/limit_result.ts";
import { parseResult } from "./old_names.ts";
import type { SeriesAround } from "../measure/series.ts";
import { formatBytes, formatSeconds, formatSize } from "../text/units.ts";
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
import type { Machine } from "./machine.ts";
import { type Curve, curveOf } from "./curve.ts";
import { type Look, lookOfIndex, lookOfKnown } from "./looks.ts";

/** Bytes a second. */
export interface Interval {
  lower: number;
  upper: number;
}

/** What is known of a limit or a rate: an interval, or only that it is above something. */
export interface Known extends Interval {
  middle: number;
  atLeast: boolean;
}

export interface ReaderReport {
  /** The same in every file that has this reader. */
  key: string;
  name: string;
  /** Of a message; bytes. */
  size: number;
  look: Look;
  limit: Known | null;
  /** The limit as each run that counts found it. */
  runs: Interval[];
  /** Of a run: upper / lower - 1 that was asked for. */
  precision: number;
  overload: LimitResult["overload"];
  recovery: LimitResult["recovery"];
  /** One line on what is not simply as it should be. */
  note?: string;
  curve: Curve;
  series?: SeriesAround;
  /** By offered rate; `share`: of its limit, null where that is not known. */
  latency?: (BenchLatency & { share: number | null })[];
}

export interface SenderReport {
  key: string;
  name: string;
  size: number;
  rate: Known | null;
  /** Bytes a second, of each run that counts. */
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
  /** What they were measured on, the same for two results that can be compared. */
  machine: Record<string, string>;
  /** The rest of what they were measured with. */
  facts: Record<string, string>;
  /** What a reader of a report must know first: that it is not complete, and the like. */
  caveats: string[];
  readers: ReaderReport[];
  senders: SenderReport[];
}

/**
 * Reads a file of the benchmark (`.json`, `.jsonl`) or what `limit --json` printed. Throws an Error of
 * one line when it is cut off, or of another schema.
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
    throw new Error(`${path} is cut off, or no JSON`, { cause });
  }
  const schema = content?.schema;
  if (schema === BENCH_SCHEMA) return fromBench(readBench(path));
  const limits = schema === LIMIT_SCHEMA
    ? [content]
    : schema === LIMITS_SCHEMA
    ? content.results
    : undefined;
  if (limits === undefined) {
    const what = typeof schema === "string" ? `its schema is ${schema}` : "it names no schema";
    throw new Error(
      `${path} cannot be read: ${what}, and must be ${BENCH_SCHEMA}, ${LIMIT_SCHEMA} or ${LIMITS_SCHEMA}`,
    );
  }
  if (!isLimits(limits)) throw new Error(`${path} is no result of limit: it has no trials`);
  return fromLimits(limits, repeating(limits));
}

function isLimits(values: unknown): values is LimitResult[] {
  return Array.isArray(values) && values.length > 0 &&
    values.every((each) => Array.isArray(each?.trials) && typeof each.environment === "object");
}

/** The command line that makes a saved result again, as far as the result tells. */
function repeating(results: readonly LimitResult[]): string {
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

/** The results of `limit`, and the command that it was called with. */
export function fromLimits(results: readonly LimitResult[], command: string): Results {
  const { environment } = results[0]!;
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0);
  const caveats = results.some(({ interrupted }) => interrupted) ? ["it was interrupted"] : [];
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
      look: lookOfIndex(i),
      limit: knownOf(result),
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

/** Our own reader is the same on another version of its runtime. */
const keyOf = (result: LimitResult) =>
  nameOf(result).replace(/(client --mode \w+, \w+) \d[\w.+-]*$/, "$1");

function knownOf({ limit, outcome, trials }: LimitResult): Known | null {
  if (limit !== null) {
    return { ...limit, middle: (limit.lower + limit.upper) / 2, atLeast: false };
  }
  const keepsUpAt = Math.max(
    0,
    ...trials.filter(({ verdict }) => verdict === "keeps-up").map(({ offered }) => offered),
  );
  if (outcome !== "generator-limited" || keepsUpAt === 0) return null;
  return { lower: keepsUpAt, upper: keepsUpAt, middle: keepsUpAt, atLeast: true };
}

/** Nothing to say where a limit was just found. */
function noteOf(outcome: LimitResult["outcome"], message: string): { note?: string } {
  return outcome === "found" && message.startsWith("found")
    ? {}
    : { note: `${outcome}: ${message}` };
}

/** The results of the benchmark. */
export function fromBench(result: BenchResult): Results {
  const { machine, rows } = result;
  const caveats = [
    ...(result.complete ? [] : ["it was interrupted: not all was measured"]),
    ...(result.quick ? ["a quick run: less exact than a full one"] : []),
    ...result.skipped.map(({ cell, why }) => `${cellName(cell)}: not measured: ${why}`),
  ];
  const whos = rows.map(({ cell }) => cell.who).filter((who, i, all) => all.indexOf(who) === i);
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
      runs: `${result.runs} of each cell, after ${result.warmUps} to warm up`,
      took: formatSeconds(result.seconds),
    },
    caveats,
    readers: rows.flatMap((row) =>
      row.cell.kind === "reader" ? [readerOf(row, row.cell, result.precision, whos)] : []
    ),
    senders: rows.flatMap(({ cell, runs, rate }) => {
      if (cell.kind === "reader") return [];
      const own = runs.filter((run): run is SenderFigures => "bytesPerSecond" in run);
      return [{
        key: cellKey(cell),
        name: cell.kind === "control" ? "control: C to C" : cell.who,
        size: cell.size,
        rate: rate && known(rate),
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
  whos: readonly string[],
): ReaderReport {
  const searched = runs.filter((run): run is ReaderFigures => "trials" in run);
  const shown = middleRun(searched);
  const series = searched.find((run) => run.series !== undefined)?.series;
  const late = searched.find((run) => run.latency !== undefined);
  const odd = searched.find(({ outcome }) => outcome !== "found");
  return {
    key: cellKey(cell),
    name: `${who} ${mode}`,
    size,
    look: lookOfKnown(who, mode, whos),
    limit: rate && known(rate),
    runs: searched.flatMap(({ limit }) => limit === null ? [] : [limit]),
    precision,
    overload: overload ?? null,
    recovery: recovery ?? null,
    ...failureOf(runs),
    ...(odd === undefined ? {} : noteOf(odd.outcome, odd.message)),
    curve: shown === undefined ? { points: [], line: [] } : curveOf(shown),
    ...(series === undefined ? {} : { series }),
    ...(late === undefined ? {} : {
      latency: late.latency!.map((each) => ({
        ...each,
        share: late.limit && each.rate / ((late.limit.lower + late.limit.upper) / 2),
      })),
    }),
  };
}

/** The run whose limit is in the middle: several together would blur the knee. */
function middleRun(runs: readonly ReaderFigures[]): ReaderFigures | undefined {
  const found = runs.filter(({ limit }) => limit !== null)
    .toSorted((a, b) => a.limit!.lower - b.limit!.lower);
  return found[(found.length - 1) >> 1] ?? runs[0];
}

function known({ median, min, max, atLeast = false }: NonNullable<BenchRow["rate"]>): Known {
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

/** One line: what they were measured on, and when. */
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
