/**
 * The benchmark's result file: JSON lines while it runs, so that an interruption loses nothing, and
 * one JSON object at the end. Both can be read as a BenchResult.
 */
import { closeSync, fsyncSync, openSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { median, spread } from "../measure/statistics.ts";
import {
  BENCH_SCHEMA,
  type BenchEnd,
  type BenchHeader,
  type BenchResult,
  type BenchRow,
  type BenchRun,
  type ReaderFigures,
} from "./bench_result.ts";
import { parseResult } from "./schema_1.ts";

/** The content of a file of JSON lines. */
export interface BenchLines {
  header: BenchHeader;
  runs: BenchRun[];
  /** Undefined: the benchmark was interrupted. */
  end: BenchEnd | undefined;
  /** Length of the complete lines; anything after them is a truncated line. Bytes. */
  goodBytes: number;
}

/**
 * Reads a result from a `.json` file, or from the JSON lines of a benchmark that may have been
 * interrupted. Throws an Error of one line where the file cannot be read, is truncated, or has
 * another schema.
 */
export function readBench(path: string): BenchResult {
  const bytes = read(path);
  if (path.endsWith(".jsonl")) {
    const { header, runs, end, goodBytes } = parseLines(path, bytes);
    if (goodBytes < bytes.length) {
      throw new Error(
        `${path} is truncated in its last line: continue the benchmark with --resume`,
      );
    }
    return assemble(header, runs, end);
  }
  const result = parse(bytes.toString("utf8"), `${path} is truncated or is not JSON`);
  checkSchema(path, result);
  if (!Array.isArray(result.rows) || !Array.isArray(result.cells)) {
    throw new Error(`${path} is not a result of bench: it has no rows`);
  }
  return result as unknown as BenchResult;
}

/** Reads the lines of a benchmark that is to be resumed; its last line may be truncated. */
export function readBenchLines(path: string): BenchLines {
  return parseLines(path, read(path));
}

/** Makes the result object that reports read, from the lines of a benchmark. */
export function assemble(
  header: BenchHeader,
  runs: readonly BenchRun[],
  end: BenchEnd | undefined,
): BenchResult {
  const { type: _type, ...rest } = header;
  const counted = runs.filter(({ round }) => round >= header.warmUps)
    .toSorted((a, b) => a.round - b.round);
  return {
    ...rest,
    complete: end !== undefined,
    seconds: end?.seconds ?? runs.reduce((sum, { seconds }) => sum + seconds, 0),
    rows: header.cells.map((cell, i) =>
      row(cell, counted.filter((run) => run.cell === i).map(({ figures }) => figures))
    ),
  };
}

function row(cell: BenchRow["cell"], runs: BenchRow["runs"]): BenchRow {
  if (cell.kind === "reader") {
    const found = runs.filter((run): run is ReaderFigures => "outcome" in run);
    const overloads = found.map(({ overload }) => overload).filter((each) => each !== null);
    const recoveries = found.map(({ recovery }) => recovery).filter((each) => each !== null);
    return {
      cell,
      runs,
      rate: readerRate(found),
      overload: overloads.length === 0 ? null : {
        offered: median(overloads.map(({ offered }) => offered)),
        drained: median(overloads.map(({ drained }) => drained)),
        collapsed: mostAre(overloads.map(({ collapsed }) => collapsed)),
      },
      recovery: recoveries.length === 0 ? null : {
        recovered: mostAre(recoveries.map(({ recovered }) => recovered)),
        seconds: median(recoveries.map(({ seconds }) => seconds)),
      },
    };
  }
  const rates = runs.flatMap((run) => "bytesPerSecond" in run ? [run.bytesPerSecond] : []);
  const rate = rates.length === 0 ? null : { median: median(rates), ...spread(rates) };
  return { cell, runs, rate };
}

/** From the lowest lower bound to the highest upper bound: it contains the limit of every run. */
function readerRate(runs: readonly ReaderFigures[]): BenchRow["rate"] {
  const found = runs.flatMap(({ limit, outcome, keepsUpAt }) =>
    limit !== null
      ? [{ ...limit, middle: (limit.lower + limit.upper) / 2 }]
      : outcome === "generator-limited" && keepsUpAt > 0
      ? [{ lower: keepsUpAt, upper: keepsUpAt, middle: keepsUpAt }]
      : []
  );
  if (found.length === 0) return null;
  const rate = {
    median: median(found.map(({ middle }) => middle)),
    min: Math.min(...found.map(({ lower }) => lower)),
    max: Math.max(...found.map(({ upper }) => upper)),
  };
  const limited = runs.some(({ outcome }) => outcome === "generator-limited");
  return limited ? { ...rate, atLeast: true } : rate;
}

const mostAre = (values: readonly boolean[]) => values.filter(Boolean).length * 2 > values.length;

/** Writes a benchmark's JSON lines; each line is on the disk when `append` returns. */
export class BenchWriter {
  readonly path: string;
  readonly #fd: number;

  /**
   * Creates a new file; with `goodBytes`, truncates an existing file to that length and appends to
   * it. Throws an Error where the file cannot be written, or already exists without `goodBytes`.
   */
  constructor(path: string, goodBytes?: number) {
    this.path = path;
    try {
      if (goodBytes !== undefined) truncateSync(path, goodBytes);
      this.#fd = openSync(path, goodBytes === undefined ? "wx" : "a");
    } catch (cause) {
      throw new Error(`cannot write ${path}: ${(cause as Error).message}`, { cause });
    }
  }

  append(line: BenchHeader | BenchRun | BenchEnd): void {
    writeSync(this.#fd, `${JSON.stringify(line)}\n`);
    fsyncSync(this.#fd);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new Error(`cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}

function parseLines(path: string, bytes: Buffer): BenchLines {
  // A line is complete only with its line feed.
  const goodBytes = bytes.lastIndexOf("\n") + 1;
  const [first, ...rest] = bytes.subarray(0, goodBytes).toString("utf8").split("\n").slice(0, -1)
    .map((line, i) => parse(line, `${path} is damaged in line ${i + 1}: it is not JSON`));
  if (first === undefined) throw new Error(`${path} is truncated in its first line`);
  checkSchema(path, first);
  if (first.type !== "header" || !Array.isArray(first.cells)) {
    throw new Error(`${path} is not a file of bench: its first line must be a header`);
  }
  const header = first as unknown as BenchHeader;
  const runs: BenchRun[] = [];
  let end: BenchEnd | undefined;
  rest.forEach((line, i) => {
    const run = line as unknown as BenchRun;
    if (line.type === "end") end = line as unknown as BenchEnd;
    else if (line.type === "run" && header.cells[run.cell] !== undefined) runs.push(run);
    else throw new Error(`${path} is damaged in line ${i + 2}: it is neither a run nor the end`);
  });
  return { header, runs, end, goodBytes };
}

function parse(text: string, problem: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseResult(text);
  } catch (cause) {
    throw new Error(problem, { cause });
  }
  if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  throw new Error(problem);
}

function checkSchema(path: string, { schema }: Record<string, unknown>): void {
  if (schema === BENCH_SCHEMA) return;
  const what = typeof schema === "string" ? `its schema is ${schema}` : "it has no schema";
  throw new Error(`${path} cannot be read: ${what}, which must be ${BENCH_SCHEMA}`);
}
