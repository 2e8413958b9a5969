/** What bench/mutation.ts writes, and its table. */
import type { Machine } from "../src/report/machine.ts";
import type { Mutant } from "./mutants.ts";

/** What became of a mutant. `explained`: it survived, and `why` says that it changes nothing. */
export interface MutantResult extends Mutant {
  outcome: "killed" | "timed-out" | "survived" | "explained";
  /** The tests that ran, the last one noticed it unless it survived. */
  tests: string[];
  /** What that one said. */
  failure?: string;
  why?: string;
}

export type Totals = Record<MutantResult["outcome"], number>;

/** The changes of one file. */
export interface FileRow extends Totals {
  file: string;
  /** Changes that it has; fewer may have been tried. */
  possible: number;
  /** Those that run, the fastest first. */
  tests: string[];
  /** One line each: `12: "<" to "<=": killed by frame_test.ts`; those that were explained, with the reason. */
  changes: string[];
}

/** What `--out` writes. */
export interface MutationResult {
  schema: "speedlimit/mutation@2";
  environment: Machine;
  options: Record<string, unknown>;
  /** Explanations of changes that there are no more, and names of changes whose text is no longer there. */
  stale: string[];
  lost: string[];
  files: FileRow[];
}

export function totals(results: readonly MutantResult[]): Totals {
  const counts = { killed: 0, "timed-out": 0, survived: 0, explained: 0 };
  for (const { outcome } of results) counts[outcome]++;
  return counts;
}

export function rowsByFile(
  results: readonly MutantResult[],
  all: readonly Mutant[],
  testsOf: (file: string) => string[],
): FileRow[] {
  return [...new Set(results.map(({ file }) => file))].sort().map((file) => {
    const own = results.filter((each) => each.file === file).sort((a, b) => a.at - b.at);
    const possible = all.filter((each) => each.file === file).length;
    return { file, possible, ...totals(own), tests: testsOf(file), changes: own.map(inOneLine) };
  });
}

/** The rows of other files that an earlier run has written there, and these. */
export function withOthers(rows: readonly FileRow[], earlier: Partial<MutationResult>): FileRow[] {
  const own = new Set(rows.map(({ file }) => file));
  const others = earlier.files?.filter(({ file }) => !own.has(file)) ?? [];
  return [...others, ...rows].sort((a, b) => a.file < b.file ? -1 : 1);
}

function inOneLine({ line, before, after, outcome, tests, why }: MutantResult): string {
  const [from, to] = [before, after].map((text) =>
    JSON.stringify(text.trim().replace(/\s+/g, " "))
  );
  const what = why ?? (outcome === "survived" ? undefined : tests.at(-1));
  return `${line}: ${from} to ${to}: ${outcome}${what === undefined ? "" : `: ${what}`}`;
}

export const MUTATION_HEAD: readonly string[] = [
  "file",
  "changes",
  "noticed",
  "explained",
  "neither",
  "tests",
];

export function formatMutationRow(row: FileRow): string[] {
  const { file, killed, survived, explained, tests } = row;
  const noticed = killed + row["timed-out"];
  return [
    file,
    ...[noticed + explained + survived, noticed, explained, survived].map(String),
    tests.map((test) => test.replace("_test.ts", "")).join(", "),
  ];
}

/** Over all files. */
export function formatMutations({ files }: MutationResult): string {
  const sum = (of: (row: FileRow) => number) => files.reduce((total, row) => total + of(row), 0);
  const noticed = sum((row) => row.killed + row["timed-out"]);
  const explained = sum((row) => row.explained);
  const tried = noticed + explained + sum((row) => row.survived);
  const possible = sum((row) => row.possible);
  const drawn = tried === possible ? "" : `, drawn from ${possible}`;
  return `Of ${tried} changes${drawn}, tests noticed ${noticed}; ${explained} change nothing, for the reasons in ` +
    `bench/mutation_explained.json; ${tried - noticed - explained} are left`;
}
