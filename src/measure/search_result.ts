/** The options and the result of a search, and the reasons that it gives. */
import type { Drift } from "./service.ts";

export interface SearchOptions {
  /** The first rate offered; bytes a second. */
  startRate: number;
  minRate: number;
  /** Infinity: no highest rate. */
  maxRate: number;
  messageSize: number;
  /** The interval is narrow enough when upper / lower is at most 1 + precision. */
  precision: number;
  /** Of the interval. */
  confidence: number;
  /** Seconds for all of it: it then ends with the best interval so far. */
  time: number;
  /** Called when more is known of the interval, with the time that the search will probably still take. */
  onInterval?: (interval: { lower: number; upper: number; secondsLeft: number }) => void;
}

/** Rates in bytes a second. */
export interface SearchResult {
  outcome: "found" | "irregular" | "generator-limited" | "path-limited" | "below-range";
  /** Where the outcome is not `found`: the highest rate at which it kept up; 0: none. */
  lower: number;
  /** Infinity: none. */
  upper: number;
  /** Why the outcome is not `found`, or why the interval is wider than `precision`. */
  reason?: string;
  /** The limit is what it works on: its socket takes more. */
  hidden?: boolean;
  /** Where the interval is wider than `precision`: about how long the search would take for that; seconds. */
  needs?: number;
  /** Its speed changes the longer it runs: `lower` and `upper` are not a limit. */
  drift?: Drift;
  /** Of several readers, the one with the lowest limit; from 0. */
  slowest: number;
  /** The longest time without a read at rates near `lower`; seconds. */
  pause: number;
  /** The largest number of bytes that it read between two samples. */
  largestRead: number;
  /** The highest rate that it drained for so many seconds while it had a backlog; 0: unknown. */
  fastest: (seconds: number) => number;
}

/** The values of `SearchResult.reason`. */
export const REASONS = {
  tooSlow: "the reader falls behind even at the lowest rate that may be offered",
  highestRate: "the reader keeps up at the highest rate that may be offered",
  senderLimit: "the reader keeps up with the highest rate that this sender can produce",
  pathLimit:
    "the network is the limit, not the reader: the sender waits for the congestion window or " +
    "the path, while the reader's receive queue is empty",
  noEnd: "the end of the reader's work was not seen",
  metastable:
    "the reader is metastable: it keeps up from below, but once it was overloaded it drains " +
    "less than that. The interval is from readers that were started anew for each trial",
  ends:
    "the reader ends its connection when it falls behind. The interval is from readers that were " +
    "started anew for each trial",
  stops:
    "the reader stops reading once it has fallen behind, and does not come back. The interval is from " +
    "readers that were started anew for each trial",
  neverBehind: "the reader caught up with each rate above its estimated limit",
  slows: "the reader becomes slower the longer it runs, so it has no single limit",
  speedsUp: "the reader becomes faster the longer it runs, so it has no single limit",
  slowerBelow: "the reader falls behind at rates below those that it drains when it is backlogged",
  contradicts: "the reader's speed differs from trial to trial, so it has no single limit",
  unclear: "the reader kept up in short trials, and in no longer one",
  varies: "the reader's speed varies, so the interval is wider than requested",
  outOfTime: "there was not enough time to find the limit",
} as const;
