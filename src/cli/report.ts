/**
 * Results worth looking at: the table and the curves in a terminal, as a page, as a picture; and two
 * files against each other.
 *
 *     deno task report bench/results/latest.json --html report.html
 *     deno task report --against old.json new.json --fail-on-regression --threshold 5%
 */
import { flag, option, parseCommandLine, UsageError } from "./command_line.ts";
import { print, report } from "./program.ts";
import { formatTable } from "../text/table.ts";
import { parseCount, parseFraction } from "../text/units.ts";
import { formatDeviation, formatPercent } from "../text/deviation.ts";
import { parseOutFile } from "./out_file.ts";
import {
  compare,
  type Comparison,
  lost,
  machineDifferences,
  METHOD,
  regressions,
} from "../report/compare.ts";
import { terminal, writeText } from "./output.ts";
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
import { formatTextCurve, printable } from "../report/text_curve.ts";

const spec = {
  name: "report",
  summary:
    "Shows results: of the benchmark (bench/results/latest.json, also .jsonl) or of limit --json.\n" +
    "Without options it prints the table and the curves.",
  positionals: {
    file: option({ value: "FILE", help: "the results", parse: String }),
  },
  options: {
    html: option({
      value: "FILE",
      help: "writes one page, which needs no network",
      parse: parseOutFile,
    }),
    svg: option({ value: "FILE", help: "writes the curves as a picture", parse: parseOutFile }),
    against: option({ value: "OLD", help: "compares: FILE to these older results", parse: String }),
    threshold: option({
      value: "SHARE",
      help: "how much slower a regression is",
      default: "5%",
      parse: parseFraction,
    }),
    failOnRegression: flag("with --against: exit 1 when something is slower by more than that"),
    width: option({
      value: "N",
      help: "columns of the curves (default: the terminal's, or 80)",
      parse: (text) => parseCount(text, { least: 24, most: 400 }),
    }),
  },
};

/** The command; its exit status. Throws a UsageError, or an Error of one line on a file. */
export async function main(args: readonly string[], called = "report.ts"): Promise<number> {
  const usage = [`${called} [OPTIONS] FILE`, `${called} [OPTIONS] --against OLD FILE`];
  const { options, positionals } = parseCommandLine({ ...spec, usage }, args);
  const { html, svg, against, threshold, failOnRegression, width } = options;
  if (positionals.file === undefined) throw new UsageError("no FILE: whose results?");
  if (failOnRegression && against === undefined) {
    throw new UsageError("--fail-on-regression needs --against OLD: slower than what?");
  }
  if (against !== undefined && (html !== undefined || svg !== undefined)) {
    throw new UsageError("--against prints a table: no --html and no --svg");
  }
  const results = readResults(positionals.file);
  if (against !== undefined) {
    return tellComparison(readResults(against), results, failOnRegression ? threshold : undefined);
  }
  if (html !== undefined) {
    const formatPage = await preparePage();
    writeText(html, formatPage(results));
    report(`${html}: open it in a browser`);
  }
  if (svg !== undefined) {
    writeText(
      svg,
      formatSvg(results.readers, { title: results.title, caption: captionOf(results) }),
    );
    report(`${svg}: written`);
  }
  if (html === undefined && svg === undefined) {
    print(formatResults(results, { ...terminal(), ...(width === undefined ? {} : { width }) }));
  }
  return 0;
}

/** All of it as text. */
function formatResults(
  results: Results,
  { width, color }: { width: number; color: boolean },
): string {
  const { readers, senders, caveats } = results;
  const parts: string[] = [];
  const texts = (rows: readonly { text: string }[][]) =>
    rows.map((cells) => cells.map(({ text }) => printable(text)));
  if (readers.length > 0) {
    parts.push(formatTable([READER_HEAD, ...texts(readers.map(readerCells))]));
  }
  if (senders.length > 0) {
    parts.push(formatTable([SENDER_HEAD, ...texts(senders.map(senderCells))]));
  }
  const late = readers.flatMap(latencyRows);
  if (late.length > 0) parts.push(formatTable([LATENCY_HEAD, ...texts(late)]));
  const notes = [
    ...caveats,
    ...notesOf([...readers, ...senders]),
    ...(late.length > 0 ? [LATENCY_METHOD] : []),
  ];
  if (notes.length > 0) parts.push(notes.map(printable).join("\n"));
  const sizes = [...new Set(readers.map(({ size }) => size))].sort((a, b) => a - b);
  for (const size of sizes) {
    const drawn = readers.filter((each) => each.size === size && each.curve.points.length > 0);
    if (drawn.length === 0) continue;
    const head = sizes.length < 2 ? [] : [`${formatMessageSize(size)} messages:`];
    parts.push([...head, formatTextCurve(drawn, { width, color })].join("\n"));
  }
  parts.push(`${captionOf(results)}; again: ${printable(results.command)}`);
  return parts.join("\n\n");
}

function tellComparison(before: Results, after: Results, threshold: number | undefined): number {
  const differences = machineDifferences(before, after);
  const cells = compare(before, after);
  if (cells.length === 0) throw new Error("the two files have nothing in common to compare");
  const row = ({ name, size, change, ratio, note }: Comparison) => [
    printable(name),
    formatMessageSize(size),
    ratio === null ? "-" : change,
    ratio === null ? "-" : formatDeviation(ratio.middle - 1, 1),
    ratio === null ? "-" : formatBounds(ratio.lower, ratio.upper),
    printable(note ?? ""),
  ];
  print(formatTable([
    ["what", "message", "now", "by", "95 % interval", ""],
    ...cells.map(row),
  ]));
  print(`\n${METHOD}`);
  for (const [which, { caveats }] of [["old", before], ["new", after]] as const) {
    for (const caveat of caveats) print(`the ${which} file: ${printable(caveat)}`);
  }
  if (differences.length > 0) {
    print(
      `not the same machine, so this compares machines too: ${printable(differences.join("; "))}`,
    );
  }
  if (threshold === undefined) return 0;
  if (differences.length > 0) {
    report("report: another machine: no regression can be told from it");
    return 1;
  }
  const slower = regressions(cells, threshold).map(({ name }) => name);
  const failed = [...slower, ...lost(before, after)];
  if (failed.length === 0) return 0;
  report(
    `report: slower by more than ${formatPercent(threshold)}, or not measured any more: ${
      printable(failed.join(", "))
    }`,
  );
  return 1;
}

/** As deviations: `-1.2 % to +3.0 %`; one that is not known is not told. */
function formatBounds(lower: number, upper: number): string {
  if (lower === 0 && upper === Infinity) return "not known";
  if (lower === 0) return `at most ${formatDeviation(upper - 1, 1)}`;
  if (upper === Infinity) return `at least ${formatDeviation(lower - 1, 1)}`;
  return `${formatDeviation(lower - 1, 1)} to ${formatDeviation(upper - 1, 1)}`;
}
