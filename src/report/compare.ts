/** Compares two result files: which readers and senders became faster, and which slower. */
import { formatPercent } from "../text/deviation.ts";
import { studentT } from "../measure/statistics.ts";
import type { Interval, ReaderReport, Results, SenderReport } from "./report.ts";

export type Change = "faster" | "slower" | "no difference seen";

/** The comparison of one reader or sender in both files. */
export interface Comparison {
  name: string;
  size: number;
  change: Change;
  /** New / old; null where one of the files has no figure. */
  ratio: (Interval & { middle: number }) | null;
  /** Text: why there is no ratio, or what limits its meaning. */
  note?: string;
}

/** The statistical method in one sentence, shown with the result. */
export const METHOD =
  "The ratio is the geometric mean of the new runs divided by that of the old ones. Its 95 % " +
  "interval comes from Welch's t on their logarithms, and includes the interval of each limit; by " +
  "chance, one row in twenty differs without a real difference.";

/** A measurement of one cell in one file: natural logarithms. */
interface Sample {
  mean: number;
  /** Of the mean, from the spread between runs. */
  variance: number;
  /** The variance of one run within its own interval. More runs do not make it smaller. */
  intervalVariance: number;
  /** Degrees of freedom of the variance; Infinity: the variance was not estimated. */
  freedom: number;
  runs: number;
}

function sampleOf(runs: readonly Interval[]): Sample | undefined {
  if (runs.length === 0) return undefined;
  const logs = runs.map(({ lower, upper }) => (Math.log(lower) + Math.log(upper)) / 2);
  const mean = logs.reduce((sum, log) => sum + log, 0) / logs.length;
  const squares = logs.reduce((sum, log) => sum + (log - mean) ** 2, 0);
  const widths = runs.map(({ lower, upper }) => Math.log(upper / lower));
  // Every value in the interval is equally likely: the variance of a uniform distribution.
  const intervalVariance = widths.reduce((sum, width) => sum + width ** 2 / 12, 0) / runs.length;
  if (runs.length === 1) return { mean, variance: 0, intervalVariance, freedom: 0, runs: 1 };
  const variance = squares / (runs.length - 1) / runs.length;
  return { mean, variance, intervalVariance, freedom: runs.length - 1, runs: runs.length };
}

/**
 * The ratio new / old with its 95 % interval; undefined where one side has no run. Where one side
 * has a single run, the spread between runs is taken from the other side. Where both have, it is
 * `assumedSpread`, a share of the rate; without that, the interval is 0 to Infinity.
 */
export function ratioOf(
  oldRuns: readonly Interval[],
  newRuns: readonly Interval[],
  assumedSpread?: number,
): NonNullable<Comparison["ratio"]> | undefined {
  const before = sampleOf(oldRuns);
  const after = sampleOf(newRuns);
  if (before === undefined || after === undefined) return undefined;
  const difference = after.mean - before.mean;
  const filled = fillSpread(before, after, assumedSpread);
  if (filled === undefined) return { middle: Math.exp(difference), lower: 0, upper: Infinity };
  const { variance, freedom } = filled;
  const error = Math.sqrt(variance + before.intervalVariance + after.intervalVariance);
  // Welch-Satterthwaite; the variance of the intervals is known, not estimated, so it costs no
  // degrees of freedom.
  const degrees = variance === 0
    ? Infinity
    : freedom * ((variance + before.intervalVariance + after.intervalVariance) / variance) ** 2;
  const half = studentT(0.05, Math.max(1, degrees)) * error;
  return {
    middle: Math.exp(difference),
    lower: Math.exp(difference - half),
    upper: Math.exp(difference + half),
  };
}

function fillSpread(
  before: Sample,
  after: Sample,
  assumedSpread: number | undefined,
): { variance: number; freedom: number } | undefined {
  if (before.runs > 1 && after.runs > 1) {
    const variance = before.variance + after.variance;
    const freedom = variance === 0 ? Infinity : variance ** 2 /
      (before.variance ** 2 / before.freedom + after.variance ** 2 / after.freedom);
    return { variance, freedom };
  }
  const measured = before.runs > 1 ? before : after;
  if (measured.runs > 1) {
    return {
      variance: measured.variance * measured.runs * (1 / before.runs + 1 / after.runs),
      freedom: measured.freedom,
    };
  }
  if (assumedSpread === undefined) return undefined;
  return { variance: 2 * assumedSpread ** 2, freedom: Infinity };
}

/** Compares every reader and sender that is in either file. */
export function compare(before: Results, after: Results): Comparison[] {
  return [
    ...pairs(before.readers, after.readers).map(([left, right]) => compareReaders(left, right)),
    ...pairs(before.senders, after.senders).map(([left, right]) => compareSenders(left, right)),
  ];
}

function pairs<Row extends { key: string }>(
  before: readonly Row[],
  after: readonly Row[],
): [Row | undefined, Row | undefined][] {
  const keys = new Set([...before, ...after].map(({ key }) => key));
  return [...keys].map((key) => [
    before.find((row) => row.key === key),
    after.find((row) => row.key === key),
  ]);
}

type Named = Pick<ReaderReport | SenderReport, "name" | "size" | "note">;

function compareReaders(before?: ReaderReport, after?: ReaderReport): Comparison {
  const bounded = boundedBy(before, after);
  if (bounded !== undefined) return conclude(before, after, bounded.ratio, bounded.note);
  // With one run on each side, assume that repeating a search gives the same within its precision.
  const spread = Math.max(before?.precision ?? 0, after?.precision ?? 0);
  const ratio = ratioOf(before?.runs ?? [], after?.runs ?? [], spread);
  const single = before?.runs.length === 1 && after?.runs.length === 1;
  const note = single
    ? `only one run each: a spread of ${formatPercent(spread)} between runs is assumed`
    : undefined;
  return conclude(before, after, ratio, note);
}

/** Where the sender was the limit, only a lower bound of the reader's limit is known. */
function boundedBy(
  before?: ReaderReport,
  after?: ReaderReport,
): { ratio: NonNullable<Comparison["ratio"]>; note: string } | undefined {
  if (!before?.limit || !after?.limit || !(before.limit.atLeast || after.limit.atLeast)) {
    return undefined;
  }
  return {
    ratio: {
      middle: after.limit.middle / before.limit.middle,
      lower: before.limit.atLeast ? 0 : after.limit.lower / before.limit.upper,
      upper: after.limit.atLeast ? Infinity : after.limit.upper / before.limit.lower,
    },
    note: "the sender was the limit, so only a bound of the ratio is known",
  };
}

function compareSenders(before?: SenderReport, after?: SenderReport): Comparison {
  const intervals = (row?: SenderReport) =>
    (row?.runs ?? []).map((rate) => ({ lower: rate, upper: rate }));
  const single = before?.runs.length === 1 && after?.runs.length === 1;
  const note = single ? "only one run each: the spread between runs is unknown" : undefined;
  return conclude(before, after, ratioOf(intervals(before), intervals(after)), note);
}

function conclude(
  before: Named | undefined,
  after: Named | undefined,
  ratio: NonNullable<Comparison["ratio"]> | undefined,
  note: string | undefined,
): Comparison {
  const { name, size } = (after ?? before)!;
  const missing = before === undefined
    ? "not in the old file"
    : after === undefined
    ? "not in the new file"
    : ratio === undefined
    ? after.note ?? before.note ?? "no figure"
    : undefined;
  if (ratio === undefined || missing !== undefined) {
    return { name, size, change: "no difference seen", ratio: null, note: missing ?? "" };
  }
  const change = ratio.lower > 1 ? "faster" : ratio.upper < 1 ? "slower" : "no difference seen";
  return { name, size, change, ratio, ...(note === undefined ? {} : { note }) };
}

/** Comparisons that are significantly slower, by more than a share. */
export function regressions(cells: readonly Comparison[], threshold: number): Comparison[] {
  return cells.filter(({ change, ratio }) =>
    change === "slower" && ratio !== null && ratio.middle < 1 - threshold
  );
}

/** How the machines of two files differ, one line each: `kernel: Linux 6.1, now Linux 6.18`. */
export function machineDifferences(before: Results, after: Results): string[] {
  const names = new Set([...Object.keys(before.machine), ...Object.keys(after.machine)]);
  return [...names].flatMap((name) => {
    const left = before.machine[name] ?? "unknown";
    const right = after.machine[name] ?? "unknown";
    return left === right ? [] : [`${name}: ${left}, now ${right}`];
  });
}

/**
 * Names of readers and senders that have a figure in the old file and none in the new one. They
 * count as regressions, because a failure must not pass as "no difference".
 */
export function lost(before: Results, after: Results): string[] {
  const figures = ({ readers, senders }: Results) =>
    [...readers, ...senders]
      .filter(({ runs }) => runs.length > 0);
  const keys = new Set(figures(after).map(({ key }) => key));
  return figures(before).filter(({ key }) => !keys.has(key)).map(({ name }) => name);
}
