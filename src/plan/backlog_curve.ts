/**
 * The backlog of a reader over time, for a feed that is known: Lindley's recursion
 * (D. V. Lindley, "The theory of queues with a single server", 1952) for a fluid. Between two arrivals
 * everything is linear, so the result is exact: no step of time is chosen.
 */
import { endOf, type Feed } from "./feed.ts";

/** The backlog in bytes at one time; linear until the next corner. Two at one time are a jump. */
export interface Corner {
  readonly at: number;
  readonly backlog: number;
}

/** A time in which the reader takes nothing. Seconds since the feed began. */
export interface Outage {
  readonly at: number;
  readonly seconds: number;
}

export interface BacklogCurve {
  readonly corners: readonly Corner[];
  /** False: it ends with a backlog that is never cleared, as no less arrives than the reader takes. */
  readonly clears: boolean;
  /** How fast the backlog grows after the last corner, bytes a second. */
  readonly growth: number;
}

/**
 * The backlog of a reader that takes up to `limit` bytes a second, except in the outage. It ends where
 * the backlog is 0 after the last arrival and the outage, or with that time if it never is.
 */
export function backlogCurve(feed: Feed, limit: number, outage?: Outage): BacklogCurve {
  const corners: Corner[] = [{ at: 0, backlog: 0 }];
  let at = 0;
  let backlog = 0;
  const push = (time: number, bytes: number) => {
    at = time;
    backlog = bytes;
    corners.push({ at, backlog });
  };
  const outageEnd = outage === undefined ? 0 : outage.at + outage.seconds;

  /** Goes on until `end` while `rate` arrives, with one rate of the reader. */
  const straight = (end: number, rate: number, taken: number) => {
    const slope = rate - taken;
    const emptyAt = slope < 0 ? at + backlog / -slope : Infinity;
    if (emptyAt < end) {
      if (backlog > 0) push(emptyAt, 0);
      push(end, 0);
    } else push(end, Math.max(0, backlog + slope * (end - at)));
  };
  const advance = (end: number, rate: number) => {
    while (at < end) {
      const away = outage !== undefined && at >= outage.at && at < outageEnd;
      const change = away
        ? outageEnd
        : outage !== undefined && at < outage.at
        ? outage.at
        : Infinity;
      straight(Math.min(end, change), rate, away ? 0 : limit);
    }
  };

  for (const arrival of feed.arrivals) {
    advance(arrival.at, 0);
    if (arrival.seconds === 0) push(at, backlog + arrival.bytes);
    else advance(arrival.at + arrival.seconds, arrival.bytes / arrival.seconds);
  }
  advance(Math.max(endOf(feed), outageEnd), feed.afterwards);
  const growth = Math.max(0, feed.afterwards - limit);
  if (growth > 0 || (backlog > 0 && feed.afterwards === limit)) {
    return { corners, clears: false, growth };
  }
  if (backlog > 0) push(at + backlog / (limit - feed.afterwards), 0);
  return { corners, clears: true, growth };
}

/** Where the backlog is largest for the first time. */
export function largestOf({ corners }: BacklogCurve): Corner {
  return corners.reduce((most, corner) => corner.backlog > most.backlog ? corner : most);
}

/** When the backlog is 0 again after a time; null: not before the curve ends. */
export function clearedAfter({ corners }: BacklogCurve, time: number): number | null {
  return corners.find(({ at, backlog }) => at >= time && backlog === 0)?.at ?? null;
}

/** When the backlog has been above `bytes` for `seconds` without a break; null: never. */
export function aboveFor(
  { corners, growth }: BacklogCurve,
  bytes: number,
  seconds: number,
): number | null {
  let since: number | null = null;
  for (const [i, to] of corners.entries()) {
    const from = corners[i - 1] ?? to;
    if (since === null && to.backlog > bytes) {
      since = from.backlog < bytes ? crossing(from, to, bytes) : from.at;
    }
    if (since === null) continue;
    const until = to.backlog > bytes ? to.at : crossing(from, to, bytes);
    if (until - since > seconds) return since + seconds;
    if (to.backlog <= bytes) since = null;
  }
  const last = corners.at(-1)!;
  if (since === null && growth > 0) since = last.at + (bytes - last.backlog) / growth;
  return since === null ? null : since + seconds;
}

/** When the line between two corners is at `bytes`. */
function crossing(from: Corner, to: Corner, bytes: number): number {
  return from.at + (to.at - from.at) * (bytes - from.backlog) / (to.backlog - from.backlog);
}
