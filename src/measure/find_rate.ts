/**
 * The search that is to replace `searchLimit`: a pure function over a `Lab`. So far only bench/coverage.ts
 * uses it, over simulated readers.
 *
 * 1. From below, doubling the rate, until the reader falls behind.
 * 2. Some above the estimate: while the reader certainly has a backlog, what it drains is its service
 *    rate. One long stretch says more than many trials that bisect.
 * 3. Just below the interval the reader must keep up.
 *
 * A reader that drains less than it had kept up with, once it was overloaded, is metastable: it has no
 * single limit. The bounds are then from fresh readers.
 */
import { Backlog, type BacklogVerdict, type Blame, type Sample } from "./backlog.ts";
import { type HiddenBacklog, isBehind, isConfirmed } from "./hidden_backlog.ts";
import { measureProcessing } from "./processing.ts";
import { Stretch } from "./stretch.ts";

export interface Lab {
  /** Offers `rate` until `add` returns true or `longest` seconds have passed. */
  offer(rate: number, add: (sample: Sample) => boolean, longest: number): Promise<void>;
  /**
   * How long the reader goes on working after that: what it has taken may wait in its own memory.
   * Undefined: its work cannot be seen.
   */
  look(): Promise<HiddenBacklog | undefined>;
  /** Stops, and waits until the reader has cleared its backlog; `fresh`: replaces it by a new one. */
  settle(fresh: boolean): Promise<void>;
  /** Seconds since the search began. */
  seconds(): number;
}

export interface FindOptions {
  startRate: number;
  minRate: number;
  maxRate: number;
  messageSize: number;
  precision: number;
  confidence: number;
  /** Seconds for all of it. */
  time: number;
}

/** Rates in bytes a second. */
export interface FoundRate {
  outcome: "found" | "irregular" | "generator-limited" | "path-limited" | "below-range";
  lower: number;
  upper: number;
  reason?: string;
  /** The limit is what it works on: its socket takes more. */
  hidden?: boolean;
  /** Change of the rate, as a share of it a minute. */
  drift?: number;
}

const NO_END = "the end of the reader's work was not seen";
const METASTABLE =
  "the reader is metastable: overloaded, it drains less than it had kept up with before";
const NEVER_BACKLOGGED = "the reader caught up with each rate above its estimated limit";
const DRIFTS = "the reader's speed changes the longer it runs";
const SLOWER_BELOW =
  "the reader falls behind at rates below those that it drains when it is backlogged";
const VARIES = "the reader's speed varies: a narrower interval takes longer";

/** Trials of the ramp only give an estimate. Seconds. */
const RAMP = { tolerance: 0.05, leastSeconds: 0.25, longest: 12 };
/** The trials just below the interval. */
const BELOW = { leastSeconds: 2, longest: 15 };
/** The stretch is offered so many times the estimate; a reader that pauses, more. */
const ABOVE = { steady: 1.1, pausing: 1.3, pause: 0.05 };
/** A pause that comes each 4 s is then seen twice. Seconds. */
const FIRST_LOOK = 8;
/** Kept for the trials after the stretch; seconds. */
const RESERVE = 8;

/** Searches the limit; calls `lab` for one trial at a time and rejects where that rejects. */
export async function findRate(lab: Lab, options: FindOptions): Promise<FoundRate> {
  const { minRate, maxRate, messageSize, precision, confidence } = options;
  let largestRead = 0;
  let pause = 0;
  const trial = async (
    rate: number,
    { tolerance, leastSeconds, longest }: typeof RAMP,
  ): Promise<
    BacklogVerdict & { drained: number; seconds: number; hidden: HiddenBacklog | undefined }
  > => {
    const backlog = new Backlog({ rate, messageSize, tolerance, leastSeconds });
    let result = backlog.verdict();
    let nextLook = leastSeconds;
    await lab.offer(rate, (sample) => {
      backlog.add(sample);
      if (sample.time < nextLook) return false;
      nextLook = sample.time + 0.05;
      result = backlog.verdict();
      return result.verdict !== undefined;
    }, Math.max(longest, 25 * messageSize / rate));
    largestRead = Math.max(largestRead, backlog.largestRead);
    pause = Math.max(pause, backlog.pause);
    const { seconds } = backlog;
    const hidden = result.verdict === "falls-behind" ? undefined : await lab.look();
    return { ...result, drained: backlog.drained / Math.max(1e-9, seconds), seconds, hidden };
  };
  /** An estimate of what a reader processes that takes more than that; undefined where it does not. */
  const processed = async (
    rate: number,
    seconds: number,
    hidden: HiddenBacklog | undefined,
    ramp: boolean,
  ): Promise<number | undefined> => {
    if (hidden === undefined || !isBehind(hidden, seconds, ramp)) return undefined;
    await lab.settle(!hidden.quiet);
    const again = await work(rate, Math.max(1, 2 * seconds));
    if (!again || !isConfirmed({ hidden, seconds }, again)) return undefined;
    return rate * again.seconds / (again.seconds + again.hidden.seconds);
  };
  /** Offers that rate for so long; how long the reader then goes on working. */
  const work = async (rate: number, seconds: number) => {
    await lab.offer(rate, () => false, seconds);
    const hidden = await lab.look();
    await lab.settle(hidden !== undefined && !hidden.quiet);
    return hidden && { hidden, seconds };
  };
  const processing = async (capacity: number): Promise<FoundRate> => {
    const found = await measureProcessing(capacity, options, async (rate, length) => {
      const trial = await work(rate, length);
      return trial && { bytes: rate * length, ...trial };
    });
    if (found === undefined) {
      return { outcome: "irregular", lower: 0, upper: capacity, reason: NO_END };
    }
    const { lower, upper, confirmed } = found;
    return { outcome: confirmed ? "found" : "irregular", lower, upper, hidden: true };
  };
  const limited = (blame: Blame, lower: number): FoundRate => ({
    outcome: blame === "path" ? "path-limited" : "generator-limited",
    lower,
    upper: Infinity,
  });

  // From below, doubling: a reader that is offered much more than its limit may collapse.
  let kept = 0;
  let failed = Infinity;
  let capacity = 0;
  for (let rate = Math.max(minRate, Math.min(options.startRate, maxRate));;) {
    const { verdict, blame, drained, slope, seconds, hidden } = await trial(rate, RAMP);
    const works = await processed(rate, seconds, hidden, true);
    if (works !== undefined) return await processing(works);
    await lab.settle(false);
    if (verdict === "keeps-up") {
      kept = rate;
      if (rate >= maxRate) return limited("sender", kept);
      if (2 * kept >= failed) break;
      rate = Math.min(2 * rate, maxRate);
      continue;
    }
    if (verdict === "falls-behind" && blame !== "reader") return limited(blame, kept);
    failed = rate;
    capacity = Math.max(0, Math.min(drained, rate - slope));
    if (2 * kept >= rate) break;
    if (rate <= minRate) return { outcome: "below-range", lower: 0, upper: rate };
    rate = Math.max(minRate, Math.min(rate / 4, capacity / 1.5 || Infinity));
  }

  // Some above the estimate, while it is certainly backlogged.
  let lower = 0;
  let upper = Infinity;
  let drift = 0;
  let mean = 0;
  let collapsed = false;
  /** Whether it drains less once it was overloaded: closer from below, with a fresh reader each time. */
  const collapses = async (saturated: number): Promise<boolean> => {
    const longer = {
      tolerance: 0.01,
      leastSeconds: Math.max(3, 16 * pause),
      longest: RAMP.longest,
    };
    await lab.settle(true);
    for (let step = 0; step < 4; step++, kept *= 0.8) {
      const { verdict } = await trial(kept, longer);
      await lab.settle(true);
      if (verdict === "keeps-up") break;
      failed = Math.min(failed, kept);
    }
    if (saturated > 0.9 * kept) return false;
    failed = Math.min(failed, 2 * kept);
    while (failed / kept > 1.05) {
      const rate = Math.sqrt(kept * failed);
      const { verdict } = await trial(rate, longer);
      await lab.settle(true);
      if (verdict === "keeps-up") kept = rate;
      else failed = rate;
    }
    return true;
  };
  let estimate = Math.max(capacity, kept);
  const left = () => options.time - lab.seconds();
  for (let attempt = 0; attempt < 8 && !collapsed; attempt++) {
    const rate = estimate * (pause > ABOVE.pause ? ABOVE.pausing : ABOVE.steady);
    const firstLook = Math.max(FIRST_LOOK, 16 * pause, 40 * messageSize / estimate);
    const stretch = new Stretch({
      ...{ rate, messageSize, error: 1 - confidence, halfWidth: precision / 2 },
      ...{ firstLook, largestRead, pause },
      lastLook: Math.max(firstLook, left() - RESERVE),
    });
    await lab.offer(rate, (sample) => stretch.add(sample), 4 * firstLook + 2 * Math.max(0, left()));
    const { estimate: found, caughtUp, blame } = stretch.result;
    if (found === undefined && caughtUp) {
      const works = await processed(rate, stretch.seconds, await lab.look(), false);
      if (works !== undefined) return await processing(works);
    }
    await lab.settle(false);
    if (found !== undefined) {
      mean = found.mean;
      const half = Math.max(found.halfWidth, precision / 4 * mean);
      lower = mean - half;
      upper = mean + half;
      drift = stretch.drift / mean * 60;
      if (upper < 0.9 * kept) {
        collapsed = await collapses(upper);
        if (!collapsed) {
          estimate = mean;
          mean = 0;
          continue;
        }
      }
      break;
    }
    if (!caughtUp) return limited(blame, kept);
    kept = Math.max(kept, rate);
    if (rate >= maxRate) return limited("sender", kept);
    estimate = rate;
  }
  if (collapsed) {
    return { outcome: "irregular", lower: kept, upper: failed, reason: METASTABLE };
  }
  if (mean === 0) {
    return { outcome: "irregular", lower: kept, upper: failed, reason: NEVER_BACKLOGGED };
  }
  if (drift !== 0) return { outcome: "irregular", lower, upper, drift, reason: DRIFTS };

  // From below it must keep up: so the speed of a full socket is that of one that is read in time.
  const tolerance = precision / 2;
  for (let step = 0; step < 4; step++) {
    const rate = lower * (1 - precision / 4) * (1 - 2 * precision) ** step;
    const leastSeconds = Math.max(BELOW.leastSeconds, 8 * pause);
    const { verdict } = await trial(rate, {
      tolerance,
      leastSeconds,
      longest: Math.min(BELOW.longest, Math.max(leastSeconds, left())),
    });
    await lab.settle(verdict !== "keeps-up");
    if (verdict !== "keeps-up") continue;
    if (step > 1) return { outcome: "irregular", lower: rate, upper, reason: SLOWER_BELOW };
    const wide = upper / lower > 1 + precision * 1.01;
    return {
      ...{ outcome: "found", lower: Math.min(lower, step > 0 ? rate : lower), upper },
      ...(wide ? { reason: VARIES } : {}),
    };
  }
  return { outcome: "irregular", lower: 0, upper, reason: SLOWER_BELOW };
}
