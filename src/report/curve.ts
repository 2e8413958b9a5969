/**
 * The curve of a reader: its drained rate over the offered rate. On the diagonal the reader keeps
 * up. Where the curve leaves the diagonal is the speed limit; beyond it the curve is flat, or the
 * reader collapses.
 */
import type { LimitResult, Trial } from "../measure/limit_result.ts";

/** One trial as a point. Rates in bytes a second. */
export interface CurvePoint {
  offered: number;
  drained: number;
  verdict: Trial["verdict"];
  purpose: Trial["purpose"];
  seconds: number;
}

export interface Curve {
  /** Every trial in which anything was drained, by offered rate. */
  points: CurvePoint[];
  /** The points of the line: one for each rate, without trials that contradict the limit. */
  line: { offered: number; drained: number }[];
}

/** The part of a result that a curve needs; `limit` and the benchmark both have it. */
export type Searched = Pick<LimitResult, "limit" | "overload" | "trials">;

/** Trials at rates closer than this factor look like one point, and become one. */
const ONE_RATE = 1.02;

/** The curve of one search. */
export function curveOf({ limit, overload, trials }: Searched): Curve {
  const points = trials.map((trial): CurvePoint => {
    const { verdict, purpose, seconds, achieved } = trial;
    // The overload rate is measured after the buffers have filled; the trial's average is not.
    const drained = purpose === "overload" && overload !== null ? overload.drained : trial.drained;
    return { offered: achieved, drained, verdict, purpose, seconds };
  }).filter(({ offered, drained }) => offered > 0 && drained > 0)
    .toSorted((a, b) => a.offered - b.offered);
  const { upper } = limit ?? { upper: Infinity };
  const below = merged(points.filter((e) => e.verdict === "keeps-up" && e.offered <= upper));
  // A reader whose speed varies also fell behind at lower rates: those points are not on the line.
  const last = below.at(-1)?.offered ?? 0;
  const past = points.filter((e) => e.verdict === "falls-behind" && e.offered > last);
  // Trials of the ramp are so short that buffers still fill: use them only without longer trials.
  const longer = past.filter(({ purpose }) => purpose !== "ramp");
  return { points, line: [...below, ...merged(longer.length > 0 ? longer : past)] };
}

/** Replaces points at nearly the same rate by one, with their median. */
function merged(points: readonly CurvePoint[]): Curve["line"] {
  const groups: CurvePoint[][] = [];
  for (const point of points) {
    const group = groups.at(-1);
    if (group !== undefined && point.offered < group[0]!.offered * ONE_RATE) group.push(point);
    else groups.push([point]);
  }
  return groups.map((group) => {
    const { offered } = group[group.length >> 1]!;
    const drained = group.map((each) => each.drained).toSorted((a, b) => a - b);
    return { offered, drained: drained[drained.length >> 1]! };
  });
}

/** The range of both axes. Bytes a second, all above 0. */
export interface View {
  left: number;
  right: number;
  bottom: number;
  top: number;
}

/** The view begins at the lowest limit divided by this: below it, all readers keep up. */
const BELOW_LIMIT = 8;
/** Space between the points and the edge, as a factor. */
const MARGIN = 1.25;

/** The view that shows the limits of all curves, and everything beyond them. */
export function viewOf(
  curves: readonly { curve: Curve; limit: { lower: number } | null }[],
): View {
  const all = curves.flatMap(({ curve }) => curve.points);
  if (all.length === 0) return { left: 1e6, right: 1e9, bottom: 1e6, top: 1e9 };
  const most = Math.max(...all.map(({ offered }) => offered));
  const limits = curves.flatMap(({ limit }) => limit === null ? [] : [limit.lower]);
  const least = Math.min(...all.map(({ offered }) => offered));
  const left = Math.max(least, Math.min(most, ...limits) / BELOW_LIMIT);
  const right = most * MARGIN;
  const shown = all.filter(({ offered }) => offered >= left);
  const lowest = Math.min(left, ...shown.map(({ drained }) => drained));
  const highest = Math.max(...shown.map(({ drained }) => drained));
  return { left, right, bottom: lowest / MARGIN, top: highest * MARGIN * MARGIN };
}
