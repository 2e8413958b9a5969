/** A figure of a runtime beside what it is measured against, as bench/speed.ts tells it. */
import { formatByteRate, formatCount } from "../src/text/units.ts";
import type { Runtime } from "../src/kernel/runtime.ts";
import { median, spread } from "../src/measure/statistics.ts";
import { formatDeviation } from "../src/text/deviation.ts";
import { meets, missedBy, type Target } from "./rows.ts";

/** One line of the result. */
export interface SpeedRow {
  what: string;
  /** What the reference is. */
  against: string;
  runtime: Runtime;
  unit: "bytes/s" | "messages/s";
  /** The median of `runs`. */
  value: number;
  /** The median of `referenceRuns`, or the rate that was asked. */
  reference: number;
  /** value / reference */
  ratio: number;
  runs: number[];
  /** Absent where the reference is no measurement. */
  referenceRuns?: number[];
  /** What `ratio` must be; empty: there is no target, the row is told for comparison. */
  target: Target;
  /** Null without a target. */
  met: boolean | null;
  note?: string;
}

/** A row from its runs, with the verdict on it. */
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

/** A line of the table. */
export function formatSpeedRow(row: SpeedRow): string[] {
  const { what, against, runtime, value, reference, ratio, target, met, runs, note } = row;
  const show = row.unit === "bytes/s" ? formatByteRate : (rate: number) => `${formatCount(rate)}/s`;
  const { min, max } = spread(runs);
  const narrow = target.most !== undefined;
  // Against a rate that was asked, three digits would all be the same.
  const range = narrow
    ? `${formatDeviation(min / reference - 1, 3)} ${formatDeviation(max / reference - 1, 3)}`
    : `${show(min)}-${show(max)}`;
  const missed = narrow
    ? `missed by ${(missedBy(ratio, target) * 100).toFixed(3)} %`
    : `missed by ${(missedBy(ratio, target) / (target.least ?? 1) * 100).toFixed(1)} %`;
  const verdict = met === null ? "" : met ? "met" : missed;
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
