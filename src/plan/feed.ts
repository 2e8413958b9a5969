/** What arrives for a reader, and when. */

/** Bytes that arrive evenly over a time; with `seconds` 0, all at once. */
export interface Arrival {
  /** When it begins: seconds since the feed began. */
  readonly at: number;
  readonly seconds: number;
  readonly bytes: number;
}

/** A feed: its arrivals in order of time, none of which overlaps another, and what follows them. */
export interface Feed {
  readonly arrivals: readonly Arrival[];
  /** The rate at which it goes on after the last arrival, bytes a second. */
  readonly afterwards: number;
}

/** A feed of `rate` with one peak at its beginning; rates in bytes a second. */
export function steadyFeed(rate: number, peak?: { rate: number; seconds: number }): Feed {
  const arrivals = peak === undefined
    ? []
    : [{ at: 0, seconds: peak.seconds, bytes: peak.rate * peak.seconds }];
  return { arrivals, afterwards: rate };
}

/** The same feed with `factor` times as many bytes at each time. */
export function grown({ arrivals, afterwards }: Feed, factor: number): Feed {
  return {
    arrivals: arrivals.map((arrival) => ({ ...arrival, bytes: arrival.bytes * factor })),
    afterwards: afterwards * factor,
  };
}

/** When its last arrival ends: seconds since it began. */
export function endOf({ arrivals }: Feed): number {
  const last = arrivals.at(-1);
  return last === undefined ? 0 : last.at + last.seconds;
}

/** All bytes of its arrivals. */
export function bytesOf({ arrivals }: Feed): number {
  return arrivals.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Its highest rate, of one arrival or of what follows; null where bytes arrive all at once. */
export function peakOf({ arrivals, afterwards }: Feed): number | null {
  let most = afterwards;
  for (const { seconds, bytes } of arrivals) {
    if (bytes > 0 && seconds === 0) return null;
    if (bytes > 0) most = Math.max(most, bytes / seconds);
  }
  return most;
}
