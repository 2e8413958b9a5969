/** The rows of bench/accuracy.ts: the limits that were found, compared with the true ones. */
import { formatDeviation } from "../src/text/deviation.ts";
import { formatByteRate, formatSeconds } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import type { LimitResult } from "../src/measure/limit_result.ts";
import { median } from "../src/measure/statistics.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { meets, missedBy, type Target } from "./rows.ts";

/** Deviation of the interval's middle from the true limit, as a share of that limit. */
const ACCURATE: Target = { least: -0.01, most: 0.01 };
/** Duration of a search. Seconds. */
const FAST: Target = { most: 20 };
/** Deviation of one of several searches from their median, as a share of the median. */
const REPEATED: Target = { most: 0.02 };

/** The result of one search; rates in bytes a second. */
export interface SearchSummary {
  outcome: LimitResult["outcome"];
  message: string;
  limit: LimitResult["limit"];
  /** The middle of the limit's interval; null without a limit. */
  middle: number | null;
  overload: LimitResult["overload"];
  recovery: LimitResult["recovery"];
  /** Number of trials. */
  trials: number;
  seconds: number;
  queueSource: string;
  kernelSource: string;
}

/** One row of the result. */
export type AccuracyRow =
  & {
    /** The reader's name. */
    what: string;
    runtime: Runtime;
    /** Null without a target. */
    met: boolean | null;
  }
  & (
    | {
      kind: "interval";
      /** The true limit. */
      asked: number;
      /** middle / asked - 1 */
      deviation: number | null;
      target: { deviation: Target; seconds: Target };
      found: SearchSummary;
    }
    | {
      kind: "searches";
      asked: number;
      /** Median of the middles; null if no search found a limit. */
      median: number | null;
      /** The largest |middle / median - 1|; null if any search found no limit. */
      largestDeviation: number | null;
      target: { largestDeviation: Target };
      found: SearchSummary[];
    }
    | { kind: "reader"; found: SearchSummary }
  );

/** The part of a result that a row keeps. */
export function summarize(result: LimitResult): SearchSummary {
  const { outcome, message, limit, overload, recovery, trials, seconds, queueSource } = result;
  return {
    outcome,
    message,
    limit,
    middle: limit === null ? null : (limit.lower + limit.upper) / 2,
    overload,
    recovery,
    trials: trials.length,
    seconds,
    queueSource,
    kernelSource: result.environment.kernelSource,
  };
}

/** The row of one search of a reader whose limit is known. */
export function judgeInterval(
  what: string,
  runtime: Runtime,
  asked: number,
  result: LimitResult,
): AccuracyRow {
  const found = summarize(result);
  const deviation = found.middle === null ? null : found.middle / asked - 1;
  const met = found.outcome === "found" && deviation !== null && meets(deviation, ACCURATE) &&
    meets(found.seconds, FAST);
  const target = { deviation: ACCURATE, seconds: FAST };
  return { kind: "interval", what, runtime, asked, deviation, target, met, found };
}

/** The row of several searches of one reader. */
export function judgeSearches(
  what: string,
  runtime: Runtime,
  asked: number,
  results: readonly LimitResult[],
): AccuracyRow {
  const found = results.map(summarize);
  const middles = found.map(({ middle }) => middle).filter((middle) => middle !== null);
  const middle = middles.length === 0 ? null : median(middles);
  const complete = middles.length === found.length;
  const largestDeviation = complete && middle !== null
    ? Math.max(...middles.map((each) => Math.abs(each / middle - 1)))
    : null;
  return {
    kind: "searches",
    what,
    runtime,
    asked,
    median: middle,
    largestDeviation,
    target: { largestDeviation: REPEATED },
    met: largestDeviation !== null && meets(largestDeviation, REPEATED) &&
      found.every(({ outcome }) => outcome === "found"),
    found,
  };
}

/** The row of a reader whose true limit is unknown: it has no target. */
export function readerRow(what: string, runtime: Runtime, result: LimitResult): AccuracyRow {
  return { kind: "reader", what, runtime, met: null, found: summarize(result) };
}

/** The column heads of the table. */
export const ACCURACY_HEAD: readonly string[] = [
  "reader",
  "sender",
  "found",
  "off by",
  "time",
  "trials",
  "target",
  "verdict",
];

/** The cells of one row. */
export function formatAccuracyRow(row: AccuracyRow): string[] {
  const start = [row.what, row.runtime];
  switch (row.kind) {
    case "interval": {
      const { found, deviation, met } = row;
      return [
        ...start,
        formatFound(found),
        deviation === null ? "-" : formatDeviation(deviation),
        formatSeconds(found.seconds),
        String(found.trials),
        "within 1 %, in 20 s",
        met ? "reached" : notReached(found, deviation),
      ];
    }
    case "searches": {
      const { found, largestDeviation: largest, met } = row;
      const failed = found.filter(({ outcome }) => outcome !== "found").length;
      const beyond = largest === null ? 0 : missedBy(largest, REPEATED);
      const reasons = [
        ...(failed > 0 ? [`no limit found in ${failed} of ${found.length}`] : []),
        ...(beyond > 0 ? [`by ${(beyond * 100).toFixed(2)} %`] : []),
      ];
      return [
        ...start,
        row.median === null ? "-" : `median ${formatByteRate(row.median)}`,
        largest === null ? "-" : `at most ${(largest * 100).toFixed(2)} %`,
        `${formatSeconds(median(found.map(({ seconds }) => seconds)))} each`,
        String(found.reduce((sum, { trials }) => sum + trials, 0)),
        "within 2 % of the median",
        met ? "reached" : `target not reached (${reasons.join(", ")})`,
      ];
    }
    case "reader": {
      const { found } = row;
      return [
        ...start,
        formatFound(found),
        "",
        formatSeconds(found.seconds),
        String(found.trials),
        "-",
        formatOverload(found),
      ];
    }
  }
}

function formatFound({ limit, outcome }: SearchSummary): string {
  return limit === null ? outcome : formatInterval(limit.lower, limit.upper);
}

function notReached(found: SearchSummary, deviation: number | null): string {
  const reasons: string[] = [];
  if (found.outcome !== "found") reasons.push(`${found.outcome}: ${found.message}`);
  const beyond = deviation === null ? 0 : missedBy(deviation, ACCURATE);
  if (beyond > 0) reasons.push(`by ${(beyond * 100).toFixed(2)} %`);
  const late = missedBy(found.seconds, FAST);
  if (late > 0) reasons.push(`by ${formatSeconds(late)}`);
  return `target not reached (${reasons.join(", ")})`;
}

function formatOverload({ outcome, message, overload, recovery }: SearchSummary): string {
  if (overload === null || recovery === null) return `${outcome}: ${message}`;
  const drains = `offered twice the limit, drains ${formatByteRate(overload.drained)}`;
  const then = recovery.recovered
    ? `clears in ${formatSeconds(recovery.seconds)}`
    : "does not recover";
  return `${drains}${overload.collapsed ? " (collapsed)" : ""}; offered half of it, ${then}`;
}
