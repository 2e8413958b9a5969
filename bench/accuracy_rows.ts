/** A reader's limit as it was found, beside the limit that it has, as bench/accuracy.ts tells it. */
import type { LimitResult } from "../src/measure/limit_result.ts";
import { formatInterval } from "../src/report/limit_table.ts";
import { formatByteRate, formatSeconds } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median } from "../src/measure/statistics.ts";
import { formatDeviation } from "../src/text/deviation.ts";
import { meets, missedBy, type Target } from "./rows.ts";

/** How far the middle of an interval may be from what was asked, as a share of it. */
const EXACT: Target = { least: -0.01, most: 0.01 };
/** How long that may take. Seconds. */
const SOON: Target = { most: 20 };
/** How far one of several searches may be from their median, as a share of it. */
const REPEATED: Target = { most: 0.02 };

/** What one search found; rates in bytes a second. */
export interface Found {
  outcome: LimitResult["outcome"];
  message: string;
  limit: LimitResult["limit"];
  /** The middle of the limit; null without one. */
  middle: number | null;
  overload: LimitResult["overload"];
  recovery: LimitResult["recovery"];
  /** How many there were. */
  trials: number;
  seconds: number;
  queueSource: string;
  kernelSource: string;
}

/** One line of the result. */
export type AccuracyRow =
  & {
    /** The reader. */
    what: string;
    runtime: Runtime;
    /** Null without a target. */
    met: boolean | null;
  }
  & (
    | {
      kind: "interval";
      asked: number;
      /** middle / asked - 1 */
      deviation: number | null;
      target: { deviation: Target; seconds: Target };
      found: Found;
    }
    | {
      kind: "searches";
      asked: number;
      /** Of the middles; null if none was found. */
      median: number | null;
      /** The largest |middle / median - 1|; null if one search found nothing. */
      largestDeviation: number | null;
      target: { largestDeviation: Target };
      found: Found[];
    }
    | { kind: "reader"; found: Found }
  );

function summarize(result: LimitResult): Found {
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

/** One search of a reader whose limit is known. */
export function judgeInterval(
  what: string,
  runtime: Runtime,
  asked: number,
  result: LimitResult,
): AccuracyRow {
  const found = summarize(result);
  const deviation = found.middle === null ? null : found.middle / asked - 1;
  const met = found.outcome === "found" && deviation !== null && meets(deviation, EXACT) &&
    meets(found.seconds, SOON);
  const target = { deviation: EXACT, seconds: SOON };
  return { kind: "interval", what, runtime, asked, deviation, target, met, found };
}

/** Several searches of one reader. */
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

/** A reader whose limit nobody knows. */
export function tellReader(what: string, runtime: Runtime, result: LimitResult): AccuracyRow {
  return { kind: "reader", what, runtime, met: null, found: summarize(result) };
}

/** The table's first line. */
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

/** A line of the table. */
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
        met ? "met" : missed(found, deviation),
      ];
    }
    case "searches": {
      const { found, largestDeviation: largest, met } = row;
      const failed = found.filter(({ outcome }) => outcome !== "found").length;
      const beyond = largest === null ? 0 : missedBy(largest, REPEATED);
      const reasons = [
        ...(failed > 0 ? [`${failed} of ${found.length} not found`] : []),
        ...(beyond > 0 ? [`by ${(beyond * 100).toFixed(2)} %`] : []),
      ];
      return [
        ...start,
        row.median === null ? "-" : `median ${formatByteRate(row.median)}`,
        largest === null ? "-" : `at most ${(largest * 100).toFixed(2)} %`,
        `${formatSeconds(median(found.map(({ seconds }) => seconds)))} each`,
        String(found.reduce((sum, { trials }) => sum + trials, 0)),
        "within 2 % of the median",
        met ? "met" : `missed: ${reasons.join(", ")}`,
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
        formatBeyond(found),
      ];
    }
  }
}

function formatFound({ limit, outcome }: Found): string {
  return limit === null ? outcome : formatInterval(limit.lower, limit.upper);
}

function missed(found: Found, deviation: number | null): string {
  const reasons: string[] = [];
  if (found.outcome !== "found") reasons.push(`${found.outcome}: ${found.message}`);
  const beyond = deviation === null ? 0 : missedBy(deviation, EXACT);
  if (beyond > 0) reasons.push(`by ${(beyond * 100).toFixed(2)} %`);
  const late = missedBy(found.seconds, SOON);
  if (late > 0) reasons.push(`by ${formatSeconds(late)}`);
  return `missed: ${reasons.join(", ")}`;
}

function formatBeyond({ outcome, message, overload, recovery }: Found): string {
  if (overload === null || recovery === null) return `${outcome}: ${message}`;
  const drains = `offered twice that, it drains ${formatByteRate(overload.drained)}`;
  const then = recovery.recovered
    ? `clears in ${formatSeconds(recovery.seconds)}`
    : "does not recover";
  return `${drains}${overload.collapsed ? " (collapsed)" : ""}; at half of it ${then}`;
}
