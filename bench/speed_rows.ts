/** The rows of bench/speed.ts: a figure of a runtime, compared with a reference. */
import { formatDeviation } from "../src/text/deviation.ts";
import { formatByteRate, formatCount } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median, spread } from "../src/measure/statistics.ts";
import { meets, missedBy, type Target } from "./rows.ts";

/** One row of the result. */
export interface SpeedRow {
  what: string;
  /** A description of the reference. */
  against: string;
  runtime: Runtime;
  unit: "bytes/s" | "messages/s";
  /** The median of `runs`. */
  value: number;
  /** The median of `referenceRuns`, or the offered rate. */
  reference: number;
  /** value / reference */
  ratio: number;
  runs: number[];
  /** Absent where the reference is not a measurement. */
  referenceRuns?: number[];
  /** Target of `ratio`; empty: none, the row is for comparison only. */
  target: Target;
  /** Null without a target. */
  met: boolean | null;
  note?: string;
}

/** Makes a row from its runs, and judges it. */
export function judge(
  row: Pick<SpeedRow, "what" | "against" | "runtime" | "unit" | "runs" | "target" | "note">,
  reference: number | readonly number[],
): SpeedRow {
  const value = median(row.runs);
  const middle = typeof reference === "number" ? reference : median(reference);
  const ratio = value / middle;
  const met = isTarget(row.target) ? meets(ratio, row.target) : null;
  const { what, against, runtime, unit, runs, target, note } = row;
  return {
    what,
    runtime,
    against,
    unit,
    value,
    reference: middle,
    ratio,
    runs,
    ...(typeof reference === "number" ? {} : { referenceRuns: [...reference] }),
    target,
    met,
    ...(note === undefined ? {} : { note }),
  };
}

const isTarget = ({ least, most }: Target) => least !== undefined || most !== undefined;

/** The cells of one row. */
export function formatSpeedRow(row: SpeedRow): string[] {
  const { what, against, runtime, value, reference, ratio, target, met, runs, note } = row;
  const show = row.unit === "bytes/s" ? formatByteRate : (rate: number) => `${formatCount(rate)}/s`;
  const { min, max } = spread(runs);
  const narrow = target.most !== undefined;
  // Rates so close to the offered one would look the same with three digits.
  const range = narrow
    ? `${formatDeviation(min / reference - 1, 3)} ${formatDeviation(max / reference - 1, 3)}`
    : `${show(min)}-${show(max)}`;
  const notReached = narrow
    ? `target not reached (by ${(missedBy(ratio, target) * 100).toFixed(3)} %)`
    : `target not reached (by ${
      (missedBy(ratio, target) / (target.least ?? 1) * 100).toFixed(1)
    } %)`;
  const verdict = met === null ? "" : met ? "reached" : notReached;
  return [
    what,
    runtime,
    show(value),
    range,
    `${against}: ${show(reference)}`,
    narrow ? formatDeviation(ratio - 1, 3) : `${ratio.toFixed(ratio < 10 ? 3 : 1)}x`,
    narrow
      ? `within ${((target.most! - 1) * 100).toFixed(1)} %`
      : target.least === undefined
      ? "-"
      : `>= ${target.least}x`,
    note === undefined ? verdict : `${verdict}: ${note}`,
  ];
}
