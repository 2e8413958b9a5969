/**
 * Room: what a feed that is known would do to a reader whose limit is known, by arithmetic alone.
 * In: a limit, a feed (rates, or a recorded trace), what the sender can hold.
 * Out: the backlog, the delay, the disk for an outage, how far the feed may grow, what would help.
 */
import {
  aboveFor,
  type BacklogCurve,
  backlogCurve,
  clearedAfter,
  largestOf,
} from "./backlog_curve.ts";
import { type Collapse, collapseOf, type Tolerated } from "./collapse.ts";
import { bytesOf, endOf, type Feed, grown, peakOf } from "./feed.ts";
import { worstOutage } from "./worst_outage.ts";

export const PLAN_SCHEMA = "speedlimit/plan@1";

/** Rates in bytes a second, sizes in bytes, times in seconds. */
export interface PlanOptions {
  /** The rate at which the reader keeps up. */
  limit: number;
  feed: Feed;
  /** What the sender queues at most, socket buffers included: it disconnects beyond that. */
  senderBuffer?: number;
  /** It also disconnects once its queue has been above `bytes` for `seconds`. */
  senderAfter?: { bytes: number; seconds: number };
  /** It also disconnects if what it has written is not taken within this time. */
  writeDeadline?: number;
  /** How long the reader may be away. */
  outage?: number;
  /** The bursts that the reader survives, from its map. */
  tolerated?: readonly Tolerated[];
}

/** Why a sender disconnects: the option that says so. */
export type Disconnects = { at: number; by: "senderBuffer" | "senderAfter" | "writeDeadline" };

/** What would make the sender keep its connection. */
export interface Help {
  /**
   * What helps most: a faster reader where the feed is faster on average; a sender that bounds what lies unread
   * where the reader collapses; a faster reader where a little suffices; else a larger buffer of the sender,
   * if memory is enough for it; else a durable queue.
   */
  mostly: "nothing" | "reader" | "unread" | "buffer" | "queue";
  /** A reader that is this fast. */
  limit: number;
  /** What a sender's buffer or a queue would have to hold; null: no size is large enough. */
  backlog: number | null;
}

/** `PLAN_SCHEMA`. Rates in bytes a second, sizes in bytes, times in seconds since the feed began. */
export interface Plan {
  schema: typeof PLAN_SCHEMA;
  limit: number;
  feed: { seconds: number; bytes: number; afterwards: number; peak: number | null };
  /** What the feed goes on at, as a share of the limit. */
  utilisation: number;
  /** `clearedAt` is null where the backlog grows for ever. */
  backlog: { largest: number; at: number; clearedAt: number | null };
  /** The longest time that a byte waits; null: ever longer. */
  delay: number | null;
  /** Null: the sender does not disconnect, or nothing is known of it. */
  disconnects: Disconnects | null;
  /** Where the reader collapses; null: it does not, or it is not known which bursts it survives. */
  collapse: Collapse | null;
  /** Of the worst time for it: what must be stored, and how long the reader then needs to clear it. */
  outage: { seconds: number; at: number; stored: number; clears: number | null } | null;
  /** The feed may have this many times as many bytes. 0: not even the least. */
  growth: number;
  help: Help;
  /** What readers of other speeds would need. */
  others: { limit: number; largest: number | null; delay: number | null }[];
}

/** Speeds of other readers to compare with, by this one's. */
const OTHERS = [0.5, 0.75, 0.9, 1, 1.25, 1.5, 2, 4];

/** Computes the plan. Throws a RangeError if an option is not above 0. */
export function plan(options: PlanOptions): Plan {
  const { limit, feed } = options;
  const curve = backlogCurve(feed, limit);
  const largest = largestOf(curve);
  return {
    schema: PLAN_SCHEMA,
    limit,
    feed: {
      seconds: endOf(feed),
      bytes: bytesOf(feed),
      afterwards: feed.afterwards,
      peak: peakOf(feed),
    },
    utilisation: feed.afterwards / limit,
    backlog: {
      largest: largest.backlog,
      at: largest.at,
      clearedAt: curve.clears ? clearedAfter(curve, largest.at) : null,
    },
    delay: curve.clears ? largest.backlog / limit : null,
    disconnects: disconnects(options, limit, curve),
    collapse: collapse(options, curve),
    outage: options.outage === undefined ? null : outageOf(options.outage, limit, feed),
    growth: mostGrowth(options),
    help: helpOf(options, curve),
    others: OTHERS.map((factor) => {
      const other = backlogCurve(feed, limit * factor);
      const { backlog } = largestOf(other);
      return {
        limit: limit * factor,
        largest: other.clears ? backlog : null,
        delay: other.clears ? backlog / (limit * factor) : null,
      };
    }),
  };
}

/** When and why the sender disconnects a reader with this limit first; null: never. */
function disconnects(options: PlanOptions, limit: number, curve: BacklogCurve): Disconnects | null {
  const { senderBuffer, senderAfter, writeDeadline } = options;
  const found: Disconnects[] = [];
  const add = (by: Disconnects["by"], at: number | null) => at !== null && found.push({ by, at });
  if (senderBuffer !== undefined) add("senderBuffer", aboveFor(curve, senderBuffer, 0));
  if (senderAfter !== undefined) {
    add("senderAfter", aboveFor(curve, senderAfter.bytes, senderAfter.seconds));
  }
  if (writeDeadline !== undefined) {
    // What is written on top of such a backlog is not taken in time.
    const late = aboveFor(curve, writeDeadline * limit, 0);
    add("writeDeadline", late === null ? null : late + writeDeadline);
  }
  return found.reduce<Disconnects | null>(
    (first, each) => first === null || each.at < first.at ? each : first,
    null,
  );
}

const collapse = ({ feed, limit, tolerated }: PlanOptions, curve: BacklogCurve) =>
  tolerated === undefined ? null : collapseOf(feed, limit, curve, tolerated);

function survives(options: PlanOptions, limit: number, feed: Feed): boolean {
  if (feed.afterwards >= limit) return false;
  const curve = backlogCurve(feed, limit);
  return disconnects(options, limit, curve) === null &&
    collapse({ ...options, limit, feed }, curve) === null;
}

function outageOf(seconds: number, limit: number, feed: Feed): Plan["outage"] {
  const outage = worstOutage(feed, limit, seconds);
  const curve = backlogCurve(feed, limit, outage);
  const back = outage.at + seconds;
  const cleared = curve.clears ? clearedAfter(curve, back) : null;
  return {
    seconds,
    at: outage.at,
    stored: largestOf(curve).backlog,
    clears: cleared === null ? null : cleared - back,
  };
}

/** A reader that must be faster by this factor at most is the least change. */
const LITTLE = 1.2;
/** What a sender may hold in memory for one reader. */
const MOST_BUFFER = 2 ** 26;

function helpOf(options: PlanOptions, curve: BacklogCurve): Help {
  const limit = leastLimit(options);
  const { backlog } = largestOf(curve);
  const help = { limit, backlog: curve.clears ? backlog : null };
  if (!curve.clears) return { mostly: "reader", ...help };
  if (collapse(options, curve) !== null) return { mostly: "unread", ...help };
  const disconnection = disconnects(options, options.limit, curve);
  if (disconnection === null) return { mostly: "nothing", ...help };
  if (limit <= options.limit * LITTLE) return { mostly: "reader", ...help };
  const isEnough = disconnection.by === "senderBuffer" && backlog <= MOST_BUFFER &&
    survives({ ...options, senderBuffer: backlog }, options.limit, options.feed);
  return { mostly: isEnough ? "buffer" : "queue", ...help };
}

/** Halvings that bring any quantity to a ten-thousandth of its range. */
const HALVINGS = 30;

/** The largest value up to `most` for which this holds, if it holds for all that are smaller. */
function largestFor(most: number, holds: (value: number) => boolean): number {
  if (holds(most * (1 - 1e-9))) return most;
  let low = 0;
  let high = most;
  for (let i = 0; i < HALVINGS; i++) {
    const middle = (low + high) / 2;
    if (holds(middle)) low = middle;
    else high = middle;
  }
  return low;
}

function mostGrowth(options: PlanOptions): number {
  const { limit, feed } = options;
  return largestFor(
    limit / feed.afterwards,
    (factor) => survives(options, limit, grown(feed, factor)),
  );
}

/** The slowest reader that survives the feed; bytes a second. */
function leastLimit(options: PlanOptions): number {
  // The inverse of a limit is bounded, a limit is not.
  const slowest = 1 / options.feed.afterwards;
  return 1 / largestFor(slowest, (inverse) => survives(options, 1 / inverse, options.feed));
}
