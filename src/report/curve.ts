/**
 * The curve of a reader: what it drained against what it was offered. On the diagonal it keeps up;
 * where it leaves the diagonal is its speed limit; after that it stays flat, or collapses.
 */
import type { LimitResult, Trial } from "../measure/limit_result.ts";

/** One trial in the picture. Bytes a second. */
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
  /** What is drawn as a line: one point a rate, without trials that contradict the limit. */
  line: { offered: number; drained: number }[];
}

/** What a curve is made of, of a search of `limit` or of a run of the benchmark. */
export type Searched = Pick<LimitResult, "limit" | "overload" | "trials">;

/** Trials at rates closer than this are at one rate, to the eye. */
const ONE_RATE = 1.02;

/** The curve of one search. */
export function curveOf({ limit, overload, trials }: Searched): Curve {
  const points = trials.map((trial): CurvePoint => {
    const { verdict, purpose, seconds, achieved } = trial;
    // What an overloaded reader comes to, not what it took while buffers filled.
    const drained = purpose === "overload" && overload !== null ? overload.drained : trial.drained;
    return { offered: achieved, drained, verdict, purpose, seconds };
  }).filter(({ offered, drained }) => offered > 0 && drained > 0)
    .toSorted((a, b) => a.offered - b.offered);
  const { upper } = limit ?? { upper: Infinity };
  const below = merged(points.filter((e) => e.verdict === "keeps-up" && e.offered <= upper));
  // A reader whose speed varies fell behind at less, too: those trials are points, off the line.
  const last = below.at(-1)?.offered ?? 0;
  const past = points.filter((e) => e.verdict === "falls-behind" && e.offered > last);
  // The ramp's glimpses end while buffers fill and a collapse begins: only where there is no more.
  const longer = past.filter(({ purpose }) => purpose !== "ramp");
  return { points, line: [...below, ...merged(longer.length > 0 ? longer : past)] };
}

/** One point for all at one rate: the one in the middle. */
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

/** What is shown of the plane. Bytes a second, all above 0. */
export interface View {
  left: number;
  right: number;
  bottom: number;
  top: number;
}

/** Below this share of the lowest limit all readers keep up: a diagonal that goes on. */
const BELOW_LIMIT = 8;
/** Room between what is drawn and the edge, as a factor. */
const MARGIN = 1.25;

/** The part of the plane in which something happens: around the knees, and what comes after. */
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
