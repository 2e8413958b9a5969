/**
 * Writes the figures of README.md, docs/benchmarks.md and docs/article.md, and the picture docs/curve.svg,
 * from the committed results. Nothing between a page's markers is written by hand:
 *
 *     <!-- NAME: begin (npm run readme) -->
 *     <!-- NAME: end -->
 *
 *     npm run readme               # after a new results file
 *     npm run readme -- --check    # exits 1 when a page does not match the results
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { flag, parseCommandLine } from "../src/cli/command_line.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { formatByteRate, formatBytes, formatCount, formatSeconds } from "../src/text/units.ts";
import { formatCoverage, formatKindRow, KIND_HEAD, type KindRow } from "./accuracy_kinds.ts";
import { type Compilers, formatCompilers } from "./accuracy_languages.ts";
import { ACCURACY_HEAD, type AccuracyRow, formatAccuracyRow } from "./accuracy_rows.ts";
import { captionOf, readResults, type Results as Report } from "../src/report/report.ts";
import { formatSvg } from "../src/report/svg.ts";
import { READER_HEAD, readerCells } from "../src/report/table.ts";
import { formatMachine, type Machine } from "../src/report/machine.ts";
import {
  COVERAGE_HEAD,
  type CoverageResult,
  formatCoverageRow,
  formatOverall,
} from "./coverage.ts";
import {
  formatMutationRow,
  formatMutations,
  MUTATION_HEAD,
  type MutationResult,
} from "./mutation_rows.ts";
import { ROW_HEAD } from "./rows.ts";
import { formatSpeedRow, type SpeedRow } from "./speed_rows.ts";
import { formatSpillRow, type SpillRow } from "./spill_rows.ts";
import {
  type ArticleResult,
  BUFFER_HEAD,
  ERROR_HEAD,
  formatBufferRow,
  formatErrorCase,
} from "./article_rows.ts";
import { BURST_HEAD, type BurstsResult, formatBurstRow, formatCheck } from "./burst_rows.ts";
import { formatRescueRow, RESCUE_HEAD, type RescueResult } from "./rescue.ts";
import { COST_HEAD, type CostRow, formatCostRow } from "./unread.ts";

const ROOT = new URL("../", import.meta.url);

interface Results<Row> {
  environment: Machine;
  rows: Row[];
}

const read = <Row>(name: string): Results<Row> =>
  JSON.parse(readFileSync(new URL(`bench/results/${name}.json`, ROOT), "utf8"));

function markdown(rows: readonly (readonly string[])[]): string {
  const [head, ...body] = rows.map((cells) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`
  );
  return [head, `|${"---|".repeat(rows[0]!.length)}`, ...body].join("\n");
}

const machineLine = ({ environment }: { environment: Machine }) => `${formatMachine(environment)}.`;

/** A section of a results file that may not exist yet. */
function ofFile<Result>(name: string, format: (result: Result) => string): () => string {
  const file = new URL(`bench/results/${name}.json`, ROOT);
  return () =>
    existsSync(file)
      ? format(JSON.parse(readFileSync(file, "utf8")) as Result)
      : "Not measured yet.";
}

/** The article's readers, in Python. */
function limitTable(): string {
  const results = read<AccuracyRow>("python");
  const rows = results.rows.flatMap((row) => {
    if (row.kind !== "reader") return [];
    const { limit, overload, recovery } = row.found;
    if (limit === null || overload === null || recovery === null) {
      throw new Error(`bench/results/python.json: no limit of ${row.what}: ${row.found.message}`);
    }
    return [[
      `${row.what} (server on ${row.runtime})`,
      formatInterval(limit.lower, limit.upper),
      `${formatCount(Math.round(limit.messagesPerSecond))}/s`,
      `drains ${formatByteRate(overload.drained)}${overload.collapsed ? ": **collapsed**" : ""}`,
      recovery.recovered
        ? `clears its backlog in ${formatSeconds(recovery.seconds)}`
        : "does not recover",
    ]];
  });
  const head = [
    "reader",
    "speed limit",
    "13-byte messages",
    "offered twice that",
    "then half of it",
  ];
  return `${markdown([head, ...rows])}\n\n${machineLine(results)}`;
}

function accuracyTable(): string {
  const results = read<AccuracyRow>("accuracy");
  const rows = results.rows.filter(({ kind }) => kind !== "reader").map(formatAccuracyRow);
  return `${markdown([[...ACCURACY_HEAD], ...rows])}\n\n${machineLine(results)}`;
}

/** Readers of many kinds, whose true rate is known. */
const kindsTable = ofFile(
  "kinds",
  (results: Results<KindRow> & Compilers) =>
    `${markdown([KIND_HEAD, ...results.rows.map(formatKindRow)])}\n\n` +
    `Intervals that hold the true rate: ${formatCoverage(results.rows)}. ` +
    `${formatCompilers(results)}${machineLine(results)}`,
);

/** The search over simulated readers. */
function coverageTable(): string {
  const { rows, options } = JSON.parse(
    readFileSync(new URL("bench/results/coverage.json", ROOT), "utf8"),
  ) as CoverageResult;
  return `${markdown([COVERAGE_HEAD, ...rows.map(formatCoverageRow)])}\n\n` +
    `${formatOverall(rows)}. Made by \`node --no-warnings bench/coverage.ts --searches ` +
    `${options.searches}\`; nothing in it is timed.`;
}

function speedTable(): string {
  const results = read<SpeedRow>("speed");
  const rows = results.rows.map(formatSpeedRow);
  return `${markdown([[...ROW_HEAD], ...rows])}\n\n${machineLine(results)}`;
}

const spillTable = ofFile(
  "spill",
  (results: Results<SpillRow>) =>
    `${markdown([[...ROW_HEAD], ...results.rows.map(formatSpillRow)])}\n\n${machineLine(results)}`,
);

/** Small changes of the source, and whether a test notices them. */
const mutationTable = ofFile(
  "mutation",
  (result: MutationResult) =>
    `${markdown([MUTATION_HEAD, ...result.files.map(formatMutationRow)])}\n\n` +
    `${formatMutations(result)}. ${machineLine(result)}`,
);

/** What a reader's calls return after its server has closed the connection. */
const errorTable = ofFile(
  "article",
  (result: ArticleResult) =>
    `${markdown([ERROR_HEAD, ...result.errors.map(formatErrorCase)])}\n\n` +
    machineLine(result),
);

const bufferTable = ofFile("article", (result: ArticleResult) => {
  const { rate, largest, buffers } = result;
  const { wmemMax, rmemMax, tcpWmem, tcpRmem } = largest;
  return `${markdown([BUFFER_HEAD, ...buffers.map(formatBufferRow)])}\n\n` +
    `Offered ${formatByteRate(rate)}. The kernel makes send buffers of up to ${
      formatBytes(tcpWmem)
    } ` +
    `and receive buffers of up to ${formatBytes(tcpRmem)} by itself; with SO_SNDBUF up to ` +
    `${formatBytes(2 * wmemMax)}, with SO_RCVBUF up to ${formatBytes(2 * rmemMax)}. ` +
    machineLine(result);
});

/** Which bursts readers survive. */
const burstTable = ofFile(
  "bursts",
  (result: BurstsResult) =>
    `${markdown([BURST_HEAD, ...result.rows.map(formatBurstRow)])}\n\n` +
    (result.checks.length === 0
      ? ""
      : `The chance to survive, of the article's fix, measured again: ${
        result.checks.map(formatCheck).join("; ")
      }.\n\n`) +
    `Sender: ${result.options.runtime}. ${machineLine(result)}`,
);

/** How a server brings the article's fix back. */
const rescueTable = ofFile("rescue", (result: RescueResult) => {
  const limits = Object.entries(result.limits).map(([runtime, limit]) =>
    `${formatByteRate(limit)} (${runtime})`
  );
  return `${markdown([RESCUE_HEAD, ...result.rows.map(formatRescueRow)])}\n\n` +
    `Its limit, as \`limit\` finds it: ${limits.join(", ")}. ${machineLine(result)}`;
});

const costTable = ofFile(
  "unread",
  (result: Results<CostRow>) =>
    `${markdown([COST_HEAD, ...result.rows.map(formatCostRow)])}\n\n${machineLine(result)}`,
);

const PICTURE = "docs/curve.svg";

/** The latest result of `deno task bench`; undefined when none is committed. */
function latest(): Report | undefined {
  const file = new URL("bench/results/latest.json", ROOT);
  return existsSync(file) ? readResults(fileURLToPath(file)) : undefined;
}

/** The readers of the smallest messages, as in the article: all readers are too many for one picture. */
function drawnReaders({ readers }: Report): Report["readers"] {
  const size = Math.min(...readers.map((reader) => reader.size));
  return readers.filter((reader) => reader.size === size);
}

function curvePicture(report: Report): string {
  const title = "Drained against offered: where each reader falls behind";
  return formatSvg(drawnReaders(report), { title, caption: captionOf(report) });
}

function curveTable(): string {
  const report = latest();
  if (report === undefined) return "Not measured yet: `deno task bench`, then `npm run readme`.";
  const rows = report.readers.map((reader) => readerCells(reader).map(({ text }) => text));
  const described = drawnReaders(report).map(({ name }) => name).join(", ");
  return `![Drained against offered, both logarithmic, for ${described}](${
    basename(PICTURE)
  })\n\n` +
    `${markdown([READER_HEAD, ...rows])}\n\n${captionOf(report)}; \`${report.command}\`.`;
}

const SECTIONS: Record<string, () => string> = {
  curve: curveTable,
  limit: limitTable,
  accuracy: accuracyTable,
  coverage: coverageTable,
  kinds: kindsTable,
  speed: speedTable,
  spill: spillTable,
  bursts: burstTable,
  rescue: rescueTable,
  unread: costTable,
  mutation: mutationTable,
  errors: errorTable,
  buffers: bufferTable,
};

/** Sections that are only on the page about the article. */
const OF_ARTICLE = ["errors", "buffers"];

/** Which figures each page has. README.md has a small table only: test/docs_test.ts checks it. */
const PAGES: Record<string, readonly string[]> = {
  "README.md": ["limit"],
  "docs/article.md": [...OF_ARTICLE, "bursts", "rescue"],
  "docs/benchmarks.md": Object.keys(SECTIONS).filter((name) => !OF_ARTICLE.includes(name)),
};

/** The text of a page with its figures. Throws an Error when its markers are not those of `names`. */
function fill(page: string, text: string, names: readonly string[]): string {
  const marked = [...text.matchAll(/^<!-- (\w+): begin/gm)].map(([, name]) => name!);
  const unknown = marked.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new Error(`${page}: no figures are made for ${unknown}`);
  for (const name of names) {
    const between = new RegExp(
      `(<!-- ${name}: begin[^\\n]*-->\\n)[\\s\\S]*?(<!-- ${name}: end -->)`,
    );
    if (!between.test(text)) throw new Error(`${page} has no markers for ${name}`);
    const table = SECTIONS[name]!();
    text = text.replace(between, (_, begin: string, end: string) => `${begin}${table}\n${end}`);
  }
  return text;
}

const spec = {
  name: "readme",
  summary: "Writes the figures of bench/results/ into README.md, docs/benchmarks.md and\n" +
    "docs/article.md, and draws docs/curve.svg.",
  usage: ["readme [--check]"],
  options: { check: flag("writes nothing; exits 1 when a file does not match the results") },
};

function main(args: readonly string[]): number {
  const { options } = parseCommandLine(spec, args);
  const report = latest();
  const wanted: Record<string, string> = report === undefined
    ? {}
    : { [PICTURE]: curvePicture(report) };
  for (const [page, names] of Object.entries(PAGES)) {
    wanted[page] = fill(page, readFileSync(new URL(page, ROOT), "utf8"), names);
  }
  for (const [name, text] of Object.entries(wanted)) {
    const file = fileURLToPath(new URL(name, ROOT));
    if (existsSync(file) && readFileSync(file, "utf8") === text) {
      printLine(`${name} matches bench/results/`);
    } else if (options.check) {
      throw new Error(`${name} does not match bench/results/: run npm run readme`);
    } else {
      writeFileSync(file, text);
      printLine(`${name}: written`);
    }
  }
  return 0;
}

if (import.meta.main) await runMain("readme", main);
