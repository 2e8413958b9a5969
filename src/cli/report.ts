/**
 * Shows results in the terminal, as an HTML page or as an SVG picture, and compares two result files.
 *
 *     deno task report bench/results/latest.json --html report.html
 *     deno task report --against old.json new.json --fail-on-regression --threshold 5%
 */
import { printable } from "../text/printable.ts";
import { formatDeviation, formatPercent } from "../text/deviation.ts";
import { formatTable } from "../text/table.ts";
import { parseCount, parseFraction } from "../text/units.ts";
import {
  compare,
  type Comparison,
  lost,
  machineDifferences,
  METHOD,
  regressions,
} from "../report/compare.ts";
import { formatMapSvg } from "../report/map_svg.ts";
import { formatMap } from "../report/map_table.ts";
import { preparePage } from "../report/page.ts";
import { captionOf, formatMessageSize, readResults, type Results } from "../report/report.ts";
import { formatSvg } from "../report/svg.ts";
import {
  LATENCY_HEAD,
  LATENCY_METHOD,
  latencyRows,
  notesOf,
  READER_HEAD,
  readerCells,
  SENDER_HEAD,
  senderCells,
} from "../report/table.ts";
import { formatTextCurve } from "../report/text_curve.ts";
import { flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import { parseOutFile } from "./out_file.ts";
import { terminal, writeText } from "./output.ts";
import { logLine, printLine } from "./program.ts";

const spec = {
  name: "report",
  summary: "Shows the results of the benchmark (bench/results/latest.json, or .jsonl), of\n" +
    "limit --json or of map --json. Without options it prints tables and curves.",
  positionals: {
    file: option({ value: "FILE", help: "the result file", parse: String }),
  },
  options: {
    html: option({
      value: "FILE",
      help: "writes an HTML page, which works without a network",
      parse: parseOutFile,
    }),
    svg: option({
      value: "FILE",
      help: "writes the curves as an SVG picture",
      parse: parseOutFile,
    }),
    against: option({
      value: "OLD",
      help: "compares FILE with these older results",
      parse: String,
    }),
    threshold: option({
      value: "SHARE",
      help: "how much slower counts as a regression",
      default: "5%",
      parse: parseFraction,
    }),
    failOnRegression: flag("with --against: exit 1 if anything is slower by more than --threshold"),
    width: option({
      value: "N",
      help: "width of the curves in columns (default: that of the terminal, or 80)",
      parse: (text) => parseCount(text, { least: 24, most: 400 }),
    }),
  },
};

/**
 * Runs the command and returns its exit status. Throws a UsageError, or an Error of one line where a
 * file cannot be read or written.
 */
export async function main(args: readonly string[], called = "report.ts"): Promise<number> {
  const usage = [`${called} [OPTIONS] FILE`, `${called} [OPTIONS] --against OLD FILE`];
  const { options, positionals } = parseCommandLine({ ...spec, usage }, args);
  const { html, svg, against, threshold, failOnRegression, width } = options;
  if (positionals.file === undefined) throw new UsageError("no FILE: name the result file to show");
  if (failOnRegression && against === undefined) {
    throw new UsageError("--fail-on-regression needs --against OLD, the results to compare with");
  }
  if (against !== undefined && (html !== undefined || svg !== undefined)) {
    throw new UsageError("--against only prints a table: it cannot be used with --html or --svg");
  }
  const results = readResults(positionals.file);
  if (against !== undefined) {
    return printComparison(readResults(against), results, failOnRegression ? threshold : undefined);
  }
  if (html !== undefined) {
    const formatPage = await preparePage();
    writeText(html, formatPage(results));
    logLine(`${html}: open it in a browser`);
  }
  if (svg !== undefined) {
    const caption = captionOf(results);
    writeText(
      svg,
      results.map === undefined
        ? formatSvg(results.readers, { title: results.title, caption })
        : formatMapSvg(results.map, caption),
    );
    logLine(`${svg}: written`);
  }
  if (html === undefined && svg === undefined) {
    printLine(formatResults(results, { ...terminal(), ...(width === undefined ? {} : { width }) }));
  }
  return 0;
}

/** The tables, notes and curves as text. */
function formatResults(
  results: Results,
  { width, color }: { width: number; color: boolean },
): string {
  const { readers, senders, caveats } = results;
  const parts: string[] = results.map === undefined ? [] : [formatMap(results.map)];
  const texts = (rows: readonly { text: string }[][]) =>
    rows.map((cells) => cells.map(({ text }) => printable(text)));
  if (readers.length > 0) {
    parts.push(formatTable([READER_HEAD, ...texts(readers.map(readerCells))]));
  }
  if (senders.length > 0) {
    parts.push(formatTable([SENDER_HEAD, ...texts(senders.map(senderCells))]));
  }
  const latencies = readers.flatMap(latencyRows);
  if (latencies.length > 0) parts.push(formatTable([LATENCY_HEAD, ...texts(latencies)]));
  const notes = [
    ...caveats,
    ...notesOf([...readers, ...senders]),
    ...(latencies.length > 0 ? [LATENCY_METHOD] : []),
  ];
  if (notes.length > 0) parts.push(notes.map(printable).join("\n"));
  const sizes = [...new Set(readers.map(({ size }) => size))].sort((a, b) => a - b);
  for (const size of sizes) {
    const drawn = readers.filter((each) => each.size === size && each.curve.points.length > 0);
    if (drawn.length === 0) continue;
    const head = sizes.length < 2 ? [] : [`${formatMessageSize(size)} messages:`];
    parts.push([...head, formatTextCurve(drawn, { width, color })].join("\n"));
  }
  parts.push(`${captionOf(results)}; repeat with: ${printable(results.command)}`);
  return parts.join("\n\n");
}

/** Prints the comparison; returns the exit status. `threshold`: exit 1 for slower than this. */
function printComparison(before: Results, after: Results, threshold: number | undefined): number {
  const differences = machineDifferences(before, after);
  const cells = compare(before, after);
  if (cells.length === 0) throw new Error("the two files have no reader or sender to compare");
  const row = ({ name, size, change, ratio, note }: Comparison) => [
    printable(name),
    formatMessageSize(size),
    ratio === null ? "-" : change,
    ratio === null ? "-" : formatDeviation(ratio.middle - 1, 1),
    ratio === null ? "-" : formatBounds(ratio.lower, ratio.upper),
    printable(note ?? ""),
  ];
  printLine(formatTable([
    ["name", "message", "change", "by", "95 % interval", ""],
    ...cells.map(row),
  ]));
  printLine(`\n${METHOD}`);
  for (const [which, { caveats }] of [["old", before], ["new", after]] as const) {
    for (const caveat of caveats) printLine(`the ${which} file: ${printable(caveat)}`);
  }
  if (differences.length > 0) {
    printLine(
      `the two files come from different machines, which also affects the comparison: ${
        printable(differences.join("; "))
      }`,
    );
  }
  if (threshold === undefined) return 0;
  if (differences.length > 0) {
    logLine("report: cannot look for regressions, because the files come from different machines");
    return 1;
  }
  const slower = regressions(cells, threshold).map(({ name }) => name);
  const failed = [...slower, ...lost(before, after)];
  if (failed.length === 0) return 0;
  logLine(
    `report: slower by more than ${formatPercent(threshold)}, or no longer measured: ${
      printable(failed.join(", "))
    }`,
  );
  return 1;
}

/** The interval as deviations: `-1.2 % to +3.0 %`; an unknown bound is left out. */
function formatBounds(lower: number, upper: number): string {
  if (lower === 0 && upper === Infinity) return "unknown";
  if (lower === 0) return `at most ${formatDeviation(upper - 1, 1)}`;
  if (upper === Infinity) return `at least ${formatDeviation(lower - 1, 1)}`;
  return `${formatDeviation(lower - 1, 1)} to ${formatDeviation(upper - 1, 1)}`;
}
