/**
 * The search for a speed limit: a pure function over `trial(rate)`.
 *
 * It starts low and doubles the rate, because a reader that is offered more than its limit may
 * collapse, and a collapsed reader shows nothing of its limit. The first trial in which the reader
 * falls behind gives an estimate of the limit; the search continues there if further trials agree,
 * else by geometric bisection. The method is that of MLRsearch (RFC 9971): an upper and a lower
 * bound, trials of several lengths, and irregular results that are neither bound.
 */

/** The result of one trial. Rates in bytes a second. */
export interface TrialOutcome {
  /** The rate that was to be offered. */
  offered: number;
  verdict: "keeps-up" | "falls-behind" | "inconclusive";
  /** Inconclusive because the sender did not keep its schedule although the kernel had room. */
  generatorLimited: boolean;
  /**
   * The offered rate less the growth of the backlog: an estimate of the limit where it fell behind.
   */
  capacity: number;
}

/**
 * What a trial is used for: a `ramp` trial is short and only gives an estimate, a `bound` trial may
 * become a bound of the result, and a `confirm` trial is the longer one that repeats it.
 */
export type SearchPhase = "ramp" | "bound" | "confirm";

export interface SearchOptions {
  /** The first rate offered; bytes a second. */
  startRate: number;
  minRate: number;
  /** Infinity: no highest rate. */
  maxRate: number;
  /**
   * The interval is narrow enough when upper / lower <= 1 + precision. Trials of a reader whose own
   * speed varies by more than that contradict each other; each contradiction doubles the precision.
   */
  precision: number;
  /**
   * Growth of the backlog with which a trial's verdict is still `keeps-up`, as a share of the rate.
   */
  tolerance: number;
  /** Called before each trial; once it returns true, each further trial widens the precision. */
  isSlow?: () => boolean;
  /** Called before each trial; once it returns true, the search ends with the interval so far. */
  isOutOfTime?: () => boolean;
  /** @deprecated `isSlow`; accepted until 1.0 */
  hurry?: () => boolean;
  /** @deprecated `isOutOfTime`; accepted until 1.0 */
  over?: () => boolean;
}

export interface SearchResult {
  outcome: "found" | "generator-limited" | "irregular" | "below-range";
  /** Highest rate at which it kept up, with no failure at or below it; 0: none. */
  lower: number;
  /** Lowest rate at which it fell behind, with no success at or above it; Infinity: none. */
  upper: number;
  /** Why the outcome is not `found`, or why the interval is wider than `precision`. */
  reason?: string;
}

const MOST_TRIALS = 40;
/** After this many trials, each further one widens the precision, so that the search ends. */
const USUAL_TRIALS = 22;
const WIDENING = 1.3;
/** Slowness alone widens the precision up to this. */
const WIDEST_WHEN_SLOW = 0.1;
/**
 * Contradictions widen the precision up to this, or up to four times the requested precision. A
 * reader whose speed varies more has no useful limit.
 */
const WIDEST_PRECISION = 0.25;
/**
 * The error of the limit's estimate from a short trial of the ramp, for a reader that pauses: a
 * pause of 50 ms is a fifth of the trial.
 */
const RAMP_ERROR = 0.25;
/**
 * The two bounds are placed around the estimate plus this share of the tolerance. The verdict
 * changes at the whole tolerance, but for a reader that pauses a trial of 1 s measures a drain rate
 * that is some 0.2 % too high.
 */
const BOUNDARY = 0.75;
/**
 * Where the sender reaches its own limit within this factor above the highest rate at which the
 * reader kept up, the reader's limit cannot be found.
 */
const GENERATOR_MARGIN = 1.1;

/** The values of `SearchResult.reason`. */
export const REASONS = {
  tooSlow: "the reader falls behind even at the lowest rate that may be offered",
  highestRate: "the reader keeps up at the highest rate that may be offered",
  senderLimit: "the reader keeps up with the highest rate that this sender can produce",
  varied:
    "the reader's speed varies: it fell behind at or below a rate at which it kept up, so the " +
    "interval is wider than requested",
  widened: "the search took long, so the interval is wider than requested",
  irregular:
    "trials contradicted each other: the reader kept up in all trials below the interval, " +
    "fell behind in all trials above it, and did both in between",
  outOfTime: "the search ran out of time before the interval was narrow enough",
} as const;

/** Searches the limit; calls `trial` for one trial at a time and rejects where that rejects. */
export async function searchLimit(
  trial: (rate: number, phase: SearchPhase) => Promise<TrialOutcome>,
  options: SearchOptions,
): Promise<SearchResult> {
  const { minRate, maxRate, tolerance } = options;
  const outcomes: TrialOutcome[] = [];
  let estimate: number | undefined;
  let estimateIsRough = true;
  /** The latest rate at which the reader kept up in a `confirm` trial; 0: none. */
  let confirmed = 0;
  /** Factor of the next step upwards; it doubles with each step. */
  let growth = 1;
  const attempt = async (rate: number, phase: SearchPhase): Promise<TrialOutcome> => {
    let outcome = await trial(rate, phase);
    // Noise is expected: a trial is repeated once before inconclusive counts as falling behind.
    if (outcome.verdict === "inconclusive" && !outcome.generatorLimited) {
      let again = rate;
      if (phase === "bound") {
        // A backlog that grows by just the tolerance stays inconclusive however long the trial is.
        // At the rate that was drained meanwhile, the verdict is clear.
        const drained = outcome.capacity;
        again = Math.min(rate * (1 - tolerance / 2), Math.max(drained, rate * (1 - 2 * tolerance)));
        again = Math.max(minRate, again);
        if (again === drained) {
          estimate = drained;
          estimateIsRough = false;
          growth = 1;
        }
      }
      outcome = await trial(again, "confirm");
      if (outcome.verdict === "keeps-up") confirmed = again;
    }
    outcomes.push(outcome);
    return outcome;
  };

  // The ramp only gives estimates. `rampKeptUp` are the rates at which the reader kept up, in
  // rising order; longer trials may refute them one by one.
  const rampKeptUp: number[] = [];
  let ceiling = maxRate;
  let rampFailed = Infinity;
  for (let rate = Math.max(minRate, Math.min(options.startRate, maxRate));;) {
    const outcome = await attempt(rate, "ramp");
    if (outcome.verdict === "keeps-up") {
      rampKeptUp.push(rate);
      if (rampFailed < Infinity) break;
      if (rate >= maxRate) break;
      rate = Math.min(rate * 2, maxRate);
    } else if (outcome.generatorLimited) {
      ceiling = rate;
      break;
    } else {
      rampFailed = rate;
      if (outcome.verdict === "falls-behind") estimate = outcome.capacity;
      if (rampKeptUp.length > 0) break;
      if (rate <= minRate) {
        return {
          outcome: "below-range",
          lower: 0,
          upper: rate,
          reason: REASONS.tooSlow,
        };
      }
      // Down in large steps, because each trial leaves a backlog that takes time to clear.
      rate = Math.max(minRate, Math.min(rate / 4, estimate ?? Infinity));
    }
  }

  // The bounds, from trials that were long enough.
  let highestKeptUp = 0;
  let lowestFailed = Infinity;
  let precision = options.precision;
  const widest = Math.max(WIDEST_PRECISION, 4 * precision);
  let contradicted = false;
  const onContradiction = () => {
    contradicted = true;
    precision *= 2;
    growth = 1;
  };
  const record = (outcome: TrialOutcome): void => {
    const { offered: rate, verdict, capacity } = outcome;
    if (verdict === "keeps-up") {
      if (rate >= lowestFailed) {
        onContradiction();
        lowestFailed = Infinity;
      }
      if (rate >= rampFailed) rampFailed = Infinity;
      highestKeptUp = Math.max(highestKeptUp, rate);
    } else if (outcome.generatorLimited) {
      ceiling = Math.min(ceiling, rate);
    } else {
      if (rate <= highestKeptUp) {
        onContradiction();
        highestKeptUp = 0;
        confirmed = 0;
      }
      while (rampKeptUp.length > 0 && rampKeptUp.at(-1)! >= rate) rampKeptUp.pop();
      lowestFailed = Math.min(lowestFailed, rate);
      estimate = verdict === "falls-behind" ? capacity : undefined;
      estimateIsRough = false;
      growth = 1;
    }
    // The rate at the rough estimate was tried, and the reader did not fall behind.
    if (estimateIsRough) estimate = undefined;
  };
  const nextRate = (): number => {
    const low = Math.max(highestKeptUp, rampKeptUp.at(-1) ?? 0);
    const high = Math.min(lowestFailed, rampFailed, ceiling);
    // Before going closer to a rate at which it kept up in the ramp only, try that rate itself.
    if (highestKeptUp < low && high / low <= (1 + precision) ** 2) return low;
    // The same for a rate at which it fell behind in the ramp only.
    if (high === rampFailed && high < lowestFailed && high / low <= 1 + precision) return high;
    // An estimate below a rate at which it kept up comes from a collapsed reader, and is ignored.
    if (estimate !== undefined && estimate > low * 0.95 && estimate < high) {
      // First a longer trial just above a rough estimate: it should fall behind there, which gives
      // a better estimate.
      if (estimateIsRough) return Math.min(estimate * (1 + RAMP_ERROR), Math.sqrt(estimate * high));
      const half = (1 + precision) ** 0.47;
      const boundary = estimate * (1 + BOUNDARY * tolerance);
      const below = boundary / half;
      if (highestKeptUp < below * 0.998 && below < lowestFailed) return below;
      // The estimate may be a little too low: go up in growing steps.
      const above = Math.max(boundary * half, highestKeptUp * (1 + precision) ** (0.94 * growth));
      if (above * 1.002 < Math.min(lowestFailed, high)) {
        growth *= 2;
        return above;
      }
    }
    if (high === Infinity) {
      growth *= 2;
      return low * (1 + precision) ** growth;
    }
    if (low === 0) return Math.max(minRate, high / 2);
    return Math.sqrt(low * high);
  };
  const bounds = (): { lower: number; upper: number } => {
    const firm = outcomes.filter((o) => o.verdict !== "inconclusive");
    const lowestFailure = Math.min(
      ...firm.filter((o) => o.verdict === "falls-behind").map((o) => o.offered),
    );
    const highestSuccess = Math.max(
      0,
      ...firm.filter((o) => o.verdict === "keeps-up").map((o) => o.offered),
    );
    const lower = Math.max(
      0,
      ...firm.filter((o) => o.verdict === "keeps-up" && o.offered < lowestFailure)
        .map((o) => o.offered),
    );
    const upper = Math.min(
      ...firm.filter((o) => o.verdict === "falls-behind" && o.offered > highestSuccess)
        .map((o) => o.offered),
    );
    return { lower, upper };
  };

  const { isSlow = options.hurry, isOutOfTime = options.over } = options;
  while (outcomes.length < MOST_TRIALS && precision <= widest) {
    if (isOutOfTime?.()) {
      return { outcome: "irregular", ...bounds(), reason: REASONS.outOfTime };
    }
    if (outcomes.length > USUAL_TRIALS || isSlow?.()) {
      precision = Math.max(precision, Math.min(precision * WIDENING, WIDEST_WHEN_SLOW));
    }
    const low = Math.max(highestKeptUp, rampKeptUp.at(-1) ?? 0);
    if (ceiling <= low * GENERATOR_MARGIN && lowestFailed > ceiling) {
      // The ramp's short trials are not enough for this outcome.
      if (highestKeptUp < low) {
        record(await attempt(low, "bound"));
        continue;
      }
      const reason = ceiling === maxRate ? REASONS.highestRate : REASONS.senderLimit;
      return { outcome: "generator-limited", lower: highestKeptUp, upper: Infinity, reason };
    }
    if (lowestFailed <= minRate) {
      return { outcome: "below-range", lower: 0, upper: lowestFailed, reason: REASONS.tooSlow };
    }
    if (highestKeptUp > 0 && lowestFailed / highestKeptUp <= 1 + precision) {
      if (highestKeptUp !== confirmed) {
        const atLower = await attempt(highestKeptUp, "confirm");
        record(atLower);
        if (atLower.verdict !== "keeps-up") continue;
        confirmed = highestKeptUp;
      }
      const above = lowestFailed * (1 + precision / 4);
      const atUpper = await attempt(above, "bound");
      if (atUpper.verdict !== "keeps-up") {
        const result: SearchResult = {
          outcome: "found",
          lower: highestKeptUp,
          upper: lowestFailed,
        };
        if (precision > options.precision) {
          result.reason = contradicted ? REASONS.varied : REASONS.widened;
        }
        return result;
      }
      record(atUpper);
      continue;
    }
    record(await attempt(nextRate(), "bound"));
  }
  return { outcome: "irregular", ...bounds(), reason: REASONS.irregular };
}
