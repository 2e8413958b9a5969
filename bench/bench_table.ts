/** The results of the cross-runtime benchmark as tables of text. */
import { formatTable } from "../src/text/table.ts";
import { formatByteRate, formatCount, formatSeconds } from "../src/text/units.ts";
import type {
  BenchResult,
  BenchRow,
  ReaderFigures,
  SenderFigures,
} from "../src/report/bench_result.ts";
import { formatMachine } from "../src/report/machine.ts";
import { nameCell } from "./bench_cells.ts";
import { formatMinutes } from "./bench_time.ts";

const READER_HEAD = [
  "reader",
  "speed limit",
  "messages",
  "least-most",
  "offered twice that",
  "then at half of it",
  "limited by",
];
const SENDER_HEAD = ["into a C drain", "median", "messages", "least-most", "limited by"];

/** Both tables, skipped cells, and the machine. */
export function formatBench(result: BenchResult): string {
  const { rows, skipped, runs, quick, machine, generator, complete, seconds } = result;
  const tables: string[] = [];
  const readers = rows.filter(({ cell }) => cell.kind === "reader");
  const senders = rows.filter(({ cell }) => cell.kind !== "reader");
  const skippedRows = (kind: (kind: string) => boolean) =>
    skipped.filter(({ cell }) => kind(cell.kind))
      .map(({ cell, why }) => [nameCell(cell), `skipped: ${why}`]);
  const isReader = (kind: string) => kind === "reader";
  const skippedReaders = skippedRows(isReader);
  const skippedSenders = skippedRows((kind) => !isReader(kind));
  if (readers.length + skippedReaders.length > 0) {
    tables.push(table(READER_HEAD, readers.map(readerCells), skippedReaders));
  }
  if (senders.length + skippedSenders.length > 0) {
    tables.push(table(SENDER_HEAD, senders.map(senderCells), skippedSenders));
  }
  const notes = [
    `median of ${runs} searches, of ${2 * runs} floods${
      quick ? " (quick run: these figures are not precise)" : ""
    }; ` +
    `${formatMinutes(seconds)}${complete ? "" : ", not complete"}; fed by ${generator.runtime}`,
    "naive readers read 10 bytes at a time, whatever the message size",
    formatMachine(machine),
  ];
  return [...tables, notes.join("\n")].join("\n\n");
}

/** Keeps rows without figures out of the alignment, where a long reason would widen a column. */
function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  skipped: readonly (readonly string[])[],
): string {
  const names = [head, ...rows, ...skipped].map(([name]) => name!.length);
  const width = Math.max(...names);
  const whole = rows.filter((cells) => cells.length === head.length);
  const partial = [...rows.filter((cells) => cells.length !== head.length), ...skipped];
  const padded = [head, ...whole].map(([name, ...rest]) => [name!.padEnd(width), ...rest]);
  return [
    formatTable(padded),
    ...partial.map(([name, why]) => `${name!.padEnd(width)}  ${why}`),
  ].join("\n");
}

function readerCells({ cell, runs, rate, overload, recovery }: BenchRow): string[] {
  const name = nameCell(cell);
  const figures = runs.filter((run): run is ReaderFigures => "outcome" in run);
  if (rate === null) return [name, problem(runs)];
  const above = rate.atLeast ? "above " : "";
  return [
    name,
    above + formatByteRate(rate.median),
    `${above}${formatCount(Math.round(rate.median / cell.size))}/s`,
    `${formatByteRate(rate.min)}-${rate.atLeast ? "?" : formatByteRate(rate.max)}`,
    overload === null || overload === undefined
      ? "-"
      : `drains ${formatByteRate(overload.drained)}${overload.collapsed ? ": collapsed" : ""}`,
    recovery === null || recovery === undefined
      ? "-"
      : recovery.recovered
      ? `clears in ${formatSeconds(recovery.seconds)}`
      : "does not recover",
    limitedBy(figures),
  ];
}

function senderCells({ cell, runs, rate }: BenchRow): string[] {
  const name = nameCell(cell);
  const figures = runs.filter((run): run is SenderFigures => "bytesPerSecond" in run);
  if (rate === null) return [name, problem(runs)];
  return [
    name,
    formatByteRate(rate.median),
    `${formatCount(Math.round(rate.median / cell.size))}/s`,
    `${formatByteRate(rate.min)}-${formatByteRate(rate.max)}`,
    limitedBy(figures),
  ];
}

/** The most frequent limiting side. */
function limitedBy(figures: readonly { limitedBy: string }[]): string {
  const words = figures.map((each) => each.limitedBy);
  const count = (word: string) => words.filter((each) => each === word).length;
  return words.toSorted((a, b) => count(b) - count(a))[0] ?? "-";
}

function problem(runs: BenchRow["runs"]): string {
  const [first] = runs;
  if (first === undefined) return "not measured";
  if ("failed" in first) return `failed: ${first.failed}`;
  return "outcome" in first ? `${first.outcome}: ${first.message}` : "-";
}
