/**
 * The search for a speed limit: a pure function over `trial(rate)`.
 *
 * From below by doubling, because a reader that was pushed over its limit may collapse and say
 * nothing of it any more; then where the first failure says that the limit is, if trials there
 * agree, else by geometric bisection. The method is MLRsearch's (RFC 9971): upper and lower bound,
 * trials of several lengths, irregular results that are neither.
 */

/** What one trial found. Rates in bytes a second. */
export interface TrialOutcome {
  /** The rate that was asked for. */
  offered: number;
  verdict: "keeps-up" | "falls-behind" | "inconclusive";
  /** Inconclusive because the sender could not keep its schedule while the kernel would take more. */
  generatorLimited: boolean;
  /** What the reader can take, as far as a trial that it fell behind in tells. */
  capacity: number;
}

/**
 * How hard to look: `ramp` is short and only a hint, `bound` may become a bound of the result,
 * `confirm` is the longer trial that a bound must survive.
 */
export type SearchPhase = "ramp" | "bound" | "confirm";

export interface SearchOptions {
  /** Where the ramp begins; bytes a second. */
  startRate: number;
  minRate: number;
  /** Infinity: none. */
  maxRate: number;
  /**
   * The interval is narrow enough when upper / lower <= 1 + precision. A reader whose own speed
   * varies more than that contradicts itself; each time, the interval may be twice as wide.
   */
  precision: number;
  /** The slope that a trial's verdict still tolerates, as a share of the rate. */
  tolerance: number;
  /** Asked before each trial: once it is true, each further trial widens the precision. */
  hurry?: () => boolean;
  /** Asked before each trial: once it is true, the search ends with what is known. */
  over?: () => boolean;
}

export interface SearchResult {
  outcome: "found" | "generator-limited" | "irregular" | "below-range";
  /** Highest rate kept with no failure at or below it; 0: none. */
  lower: number;
  /** Lowest rate failed with no success at or above it; Infinity: none. */
  upper: number;
  /** Why it is not `found`. */
  reason?: string;
}

const MOST_TRIALS = 40;
/** A search that takes more than this pays with precision: each further trial widens it. */
const USUAL_TRIALS = 22;
const WIDENING = 1.3;
const HURRIED_PRECISION = 0.1;
const CONTRADICTION =
  "below lower it always kept up, above upper it always fell behind, in between its trials contradict";
/** A reader whose speed varies by more than this has no limit to speak of, unless asked for less. */
const WIDEST_PRECISION = 0.25;
/**
 * What a ramp's short trial says of the limit is off by up to this much for a reader that pauses: 50 ms
 * are a fifth of it.
 */
const RAMP_ERROR = 0.25;
/**
 * Around which share of the tolerance the two bounds are put: a verdict changes at all of it, but the
 * drain rate in a trial of 1 s is some 0.2 % too high for a reader that pauses.
 */
const BOUNDARY = 0.75;
/** A generator that gives up this close above the reader's last success hides the limit. */
const GENERATOR_MARGIN = 1.1;

export async function searchLimit(
  trial: (rate: number, effort: SearchPhase) => Promise<TrialOutcome>,
  options: SearchOptions,
): Promise<SearchResult> {
  const { minRate, maxRate, tolerance } = options;
  const outcomes: TrialOutcome[] = [];
  let hint: number | undefined;
  let hintIsRough = true;
  /** A rate that a long trial has kept already. */
  let confirmed = 0;
  /** Of the steps that go up, in precisions. */
  let growth = 1;
  const attempt = async (rate: number, effort: SearchPhase): Promise<TrialOutcome> => {
    let outcome = await trial(rate, effort);
    // Noise is expected: one more look before an inconclusive trial counts as a failure.
    if (outcome.verdict === "inconclusive" && !outcome.generatorLimited) {
      let again = rate;
      if (effort === "bound") {
        // What grows just as much as is tolerated stays unclear however long one looks; at what was
        // drained meanwhile it is clear.
        const drained = outcome.capacity;
        again = Math.min(rate * (1 - tolerance / 2), Math.max(drained, rate * (1 - 2 * tolerance)));
        again = Math.max(minRate, again);
        if (again === drained) {
          hint = drained;
          hintIsRough = false;
          growth = 1;
        }
      }
      outcome = await trial(again, "confirm");
      if (outcome.verdict === "keeps-up") confirmed = again;
    }
    outcomes.push(outcome);
    return outcome;
  };

  // The ramp: hints only. `glimpsed` are the rates it kept, rising; a trial of full length may
  // refute them one by one.
  const glimpsed: number[] = [];
  let ceiling = maxRate;
  let failedInRamp = Infinity;
  for (let rate = Math.max(minRate, Math.min(options.startRate, maxRate));;) {
    const outcome = await attempt(rate, "ramp");
    if (outcome.verdict === "keeps-up") {
      glimpsed.push(rate);
      if (failedInRamp < Infinity) break;
      if (rate >= maxRate) break;
      rate = Math.min(rate * 2, maxRate);
    } else if (outcome.generatorLimited) {
      ceiling = rate;
      break;
    } else {
      failedInRamp = rate;
      if (outcome.verdict === "falls-behind") hint = outcome.capacity;
      if (glimpsed.length > 0) break;
      if (rate <= minRate) {
        return {
          outcome: "below-range",
          lower: 0,
          upper: rate,
          reason: "it falls behind at the lowest rate already",
        };
      }
      // Down in large steps: a backlog that was once made takes its time.
      rate = Math.max(minRate, Math.min(rate / 4, hint ?? Infinity));
    }
  }

  // The bounds: `highestKept` and `failed` rest on trials that were long enough.
  let highestKept = 0;
  let failed = Infinity;
  let precision = options.precision;
  const widest = Math.max(WIDEST_PRECISION, 4 * precision);
  const contradict = () => {
    precision *= 2;
    growth = 1;
  };
  const record = (outcome: TrialOutcome): void => {
    const { offered: rate, verdict, capacity } = outcome;
    if (verdict === "keeps-up") {
      if (rate >= failed) {
        contradict();
        failed = Infinity;
      }
      if (rate >= failedInRamp) failedInRamp = Infinity;
      highestKept = Math.max(highestKept, rate);
    } else if (outcome.generatorLimited) {
      ceiling = Math.min(ceiling, rate);
    } else {
      if (rate <= highestKept) {
        contradict();
        highestKept = 0;
        confirmed = 0;
      }
      while (glimpsed.length > 0 && glimpsed.at(-1)! >= rate) glimpsed.pop();
      failed = Math.min(failed, rate);
      hint = verdict === "falls-behind" ? capacity : undefined;
      hintIsRough = false;
      growth = 1;
    }
    // It was tried, and was no failure.
    if (hintIsRough) hint = undefined;
  };
  const nextRate = (): number => {
    const low = Math.max(highestKept, glimpsed.at(-1) ?? 0);
    const high = Math.min(failed, failedInRamp, ceiling);
    // Nothing is gained by closing in on a rate that only a glimpse has seen kept.
    if (highestKept < low && high / low <= (1 + precision) ** 2) return low;
    // Nor on one that only a glimpse has seen failed.
    if (high === failedInRamp && high < failed && high / low <= 1 + precision) return high;
    // A collapsed reader's drain rate lies below what it has kept: not to be believed.
    if (hint !== undefined && hint > low * 0.95 && hint < high) {
      // First a longer look from just above, which it should fail, and tell its limit better.
      if (hintIsRough) return Math.min(hint * (1 + RAMP_ERROR), Math.sqrt(hint * high));
      const half = (1 + precision) ** 0.47;
      const boundary = hint * (1 + BOUNDARY * tolerance);
      const below = boundary / half;
      if (highestKept < below * 0.998 && below < failed) return below;
      // The rate may be a little too low: above what was kept, in growing steps.
      const above = Math.max(boundary * half, highestKept * (1 + precision) ** (0.94 * growth));
      if (above * 1.002 < Math.min(failed, high)) {
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

  while (outcomes.length < MOST_TRIALS && precision <= widest) {
    if (options.over?.()) {
      return { outcome: "irregular", ...bounds(), reason: "its trials took too long to be clear" };
    }
    if (outcomes.length > USUAL_TRIALS || options.hurry?.()) {
      precision = Math.max(precision, Math.min(precision * WIDENING, HURRIED_PRECISION));
    }
    const low = Math.max(highestKept, glimpsed.at(-1) ?? 0);
    if (ceiling <= low * GENERATOR_MARGIN && failed > ceiling) {
      // Only a trial of full length may say so.
      if (highestKept < low) {
        record(await attempt(low, "bound"));
        continue;
      }
      const reason = ceiling === maxRate
        ? "it keeps up with the highest rate that was asked for"
        : "it keeps up with all that this sender can make";
      return { outcome: "generator-limited", lower: highestKept, upper: Infinity, reason };
    }
    if (failed <= minRate) {
      const reason = "it falls behind at the lowest rate already";
      return { outcome: "below-range", lower: 0, upper: failed, reason };
    }
    if (highestKept > 0 && failed / highestKept <= 1 + precision) {
      if (highestKept !== confirmed) {
        const atLower = await attempt(highestKept, "confirm");
        record(atLower);
        if (atLower.verdict !== "keeps-up") continue;
        confirmed = highestKept;
      }
      const above = failed * (1 + precision / 4);
      const atUpper = await attempt(above, "bound");
      if (atUpper.verdict !== "keeps-up") {
        const result: SearchResult = { outcome: "found", lower: highestKept, upper: failed };
        if (precision > options.precision) {
          result.reason = "its own speed varies: trials at the same rates contradicted each other";
        }
        return result;
      }
      record(atUpper);
      continue;
    }
    record(await attempt(nextRate(), "bound"));
  }
  return { outcome: "irregular", ...bounds(), reason: CONTRADICTION };
}
