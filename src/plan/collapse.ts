/** Whether a peak of a feed makes a reader collapse whose burst tolerance is known. */
import type { BacklogCurve } from "./backlog_curve.ts";
import type { Feed } from "./feed.ts";

/** From a map: at this base rate (bytes a second) the reader survives bursts up to so many bytes. */
export interface Tolerated {
  readonly rate: number;
  /** Infinity: any burst. */
  readonly burst: number;
}

/** Where the reader collapses first: rates in bytes a second, sizes in bytes, times in seconds. */
export interface Collapse {
  at: number;
  /** The feed goes on at this rate, and what came before is like a burst of this size on top of it. */
  rate: number;
  burst: number;
  /** What it would survive at that rate. */
  tolerance: number;
}

/** The rate that follows is the mean over this time, and over twice the time that the backlog takes. */
const AHEAD_SECONDS = 0.1;

/**
 * The first time at which what came since the reader was last clear is more than it survives; null: it
 * survives all of it. A peak of a rate p that lasts for d, on top of r, is as bad as a burst of (p - r) d
 * at once: while it lasts the reader cannot catch up, and afterwards as much has come.
 */
export function collapseOf(
  feed: Feed,
  limit: number,
  { corners }: BacklogCurve,
  tolerated: readonly Tolerated[],
): Collapse | null {
  const arrived = arrivals(feed);
  let clearAt = 0;
  for (const { at, backlog } of corners) {
    if (backlog === 0) {
      clearAt = at;
      continue;
    }
    const ahead = Math.max(AHEAD_SECONDS, 2 * backlog / limit);
    const rate = (arrived(at + ahead) - arrived(at)) / ahead;
    // Until the feed is slower than the reader, nothing is decided.
    if (rate >= limit) continue;
    const burst = arrived(at) - arrived(clearAt) - rate * (at - clearAt);
    const tolerance = toleranceAt(rate, limit, tolerated);
    if (burst > tolerance) return { at, rate, burst, tolerance };
  }
  return null;
}

/** What has arrived by a time; of what arrives all at once then, all of it. */
function arrivals({ arrivals, afterwards }: Feed): (time: number) => number {
  const before: number[] = [];
  let sum = 0;
  for (const { bytes } of arrivals) {
    before.push(sum);
    sum += bytes;
  }
  return (time) => {
    let low = 0;
    let high = arrivals.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (arrivals[middle]!.at <= time) low = middle + 1;
      else high = middle;
    }
    const last = arrivals[low - 1];
    if (last === undefined) return time > 0 && arrivals.length === 0 ? afterwards * time : 0;
    const { at, seconds, bytes } = last;
    const share = seconds === 0 ? 1 : Math.min(1, (time - at) / seconds);
    const rest = low === arrivals.length ? Math.max(0, time - at - seconds) * afterwards : 0;
    return before[low - 1]! + bytes * share + rest;
  };
}

/**
 * The burst that is survived at a rate: between two rates that were measured on a straight line, in
 * logarithms; below the lowest as there; from the highest on down to 0 at the limit.
 */
export function toleranceAt(
  rate: number,
  limit: number,
  tolerated: readonly Tolerated[],
): number {
  const sorted = [...tolerated].sort((a, b) => a.rate - b.rate);
  const above = sorted.findIndex((each) => each.rate >= rate);
  if (above === 0) return sorted[0]!.burst;
  if (above < 0) {
    const last = sorted.at(-1)!;
    return last.burst * (limit - rate) / (limit - last.rate);
  }
  const [from, to] = [sorted[above - 1]!, sorted[above]!];
  if (from.burst === Infinity || to.burst === 0) return to.burst;
  const share = Math.log(rate / from.rate) / Math.log(to.rate / from.rate);
  return from.burst ** (1 - share) * to.burst ** share;
}
