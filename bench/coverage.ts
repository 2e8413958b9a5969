/**
 * How often the search's interval holds the true rate, over simulated readers of many kinds: no
 * sockets, and no time is waited for.
 *
 *     node --no-warnings bench/coverage.ts --searches 200 --out coverage.json
 */
import { formatTable } from "../src/text/table.ts";
import { formatSeconds, parseCount } from "../src/text/units.ts";
import { searchLimit } from "../src/measure/search.ts";
import type { SearchResult } from "../src/measure/search_result.ts";
import { median } from "../src/measure/statistics.ts";
import { option, parseCommandLine } from "../src/cli/command_line.ts";
import { parseOutFile } from "../src/cli/out_file.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { writeResult } from "./rows.ts";
import { type Simulated, SimulatedLab, simulatedReaders } from "./simulated.ts";
import { randomFrom } from "./random.ts";

const spec = {
  name: "coverage",
  summary: "Searches the limits of simulated readers whose true rate is known, and counts\n" +
    "how many of the intervals hold it.",
  usage: ["coverage.ts [OPTIONS]"],
  options: {
    searches: option({
      value: "N",
      help: "number of searches of each kind of reader",
      default: "200",
      parse: (text) => parseCount(text, { most: 100_000 }),
    }),
    out: option({
      value: "FILE.json",
      help: "also writes all figures to this file",
      parse: parseOutFile,
    }),
  },
};

/** What came out for one kind of reader. */
export interface CoverageRow {
  kind: string;
  searches: number;
  /** Number of searches with this outcome. */
  outcomes: Partial<Record<SearchResult["outcome"], number>>;
  /** Of the intervals called `found`, those that hold the true rate. */
  holding: number;
  /** Median of upper / lower - 1 of those; null without any. */
  width: number | null;
  /** Of all searches: simulated seconds. */
  seconds: { median: number; longest: number };
  /** The outcome that is right for this kind, and how many searches had another. */
  expected: SearchResult["outcome"];
  wrong: number;
}

/** What `--out` writes. */
export interface CoverageResult {
  schema: "speedlimit/coverage@1";
  options: { searches: number };
  rows: CoverageRow[];
}

/** Searches each kind of reader so many times, with other rates and seeds each time. */
export async function measureCoverage(searches: number): Promise<CoverageRow[]> {
  const byKind = new Map<string, { reader: Simulated; result: SearchResult; seconds: number }[]>();
  for (let seed = 1; seed <= searches; seed++) {
    for (const reader of simulatedReaders(randomFrom(1000 + seed))) {
      const lab = new SimulatedLab(reader, 7919 * seed);
      const result = await searchLimit(lab, {
        ...{ startRate: 500_000, minRate: 1000, maxRate: Infinity, messageSize: 100 },
        ...{ precision: 0.01, confidence: 0.95, time: 60 },
      });
      const list = byKind.get(reader.kind) ?? [];
      byKind.set(reader.kind, [...list, { reader, result, seconds: lab.seconds() }]);
    }
  }
  return [...byKind].map(([kind, list]) => {
    const outcomes: CoverageRow["outcomes"] = {};
    for (const { result: { outcome } } of list) outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    const found = list.filter(({ result }) => result.outcome === "found");
    const holding = found.filter(({ reader: { limit }, result: { lower, upper } }) =>
      lower <= limit && limit <= upper
    );
    const widths = found.map(({ result: { lower, upper } }) => upper / lower - 1);
    const seconds = list.map((each) => each.seconds);
    const { expected } = list[0]!.reader;
    return {
      ...{ kind, searches: list.length, outcomes, holding: holding.length, expected },
      width: widths.length === 0 ? null : median(widths),
      seconds: { median: median(seconds), longest: Math.max(...seconds) },
      wrong: list.length - (outcomes[expected] ?? 0),
    };
  });
}

export const COVERAGE_HEAD: readonly string[] = [
  "reader",
  "found",
  "hold the true rate",
  "width",
  "time",
  "expected",
  "other outcomes",
];

export function formatCoverageRow(row: CoverageRow): string[] {
  const { kind, outcomes, holding, width, seconds, expected, wrong, searches } = row;
  const found = outcomes.found ?? 0;
  return [
    kind,
    `${found} of ${searches}`,
    found === 0 ? "-" : `${(holding / found * 100).toFixed(1)} %`,
    width === null ? "-" : `${(width * 100).toFixed(2)} %`,
    `${formatSeconds(seconds.median)}, at most ${formatSeconds(seconds.longest)}`,
    expected,
    `${(wrong / searches * 100).toFixed(1)} %`,
  ];
}

/** Over all kinds. */
export function formatOverall(rows: readonly CoverageRow[]): string {
  const sum = (of: (row: CoverageRow) => number) => rows.reduce((total, row) => total + of(row), 0);
  const found = sum(({ outcomes }) => outcomes.found ?? 0);
  const searches = sum((row) => row.searches);
  const holding = (sum((row) => row.holding) / found * 100).toFixed(1);
  const wrong = (sum((row) => row.wrong) / searches * 100).toFixed(1);
  return `Of ${searches} searches, ${found} were called found, and ${holding} % of those intervals hold ` +
    `the true rate; ${wrong} % had another outcome than expected`;
}

async function main(args: readonly string[]): Promise<void> {
  const { options: { searches, out } } = parseCommandLine(spec, args);
  const rows = await measureCoverage(searches);
  printLine(formatTable([COVERAGE_HEAD, ...rows.map(formatCoverageRow)]));
  printLine(`\n${formatOverall(rows)}`);
  if (out === undefined) return;
  const result: CoverageResult = { schema: "speedlimit/coverage@1", options: { searches }, rows };
  writeResult(out, result);
}

if (import.meta.main) await runMain("coverage", main);
