/**
 * The search for a speed limit: a pure function over a `Lab`.
 *
 * 1. From below, doubling the rate, until the reader falls behind. A reader that is offered much more than
 *    its limit may collapse, and then shows nothing of it.
 * 2. Some above the estimate: while the reader certainly has a backlog, what it drains is its service
 *    rate. One long stretch says more than many trials that bisect.
 * 3. Just below the interval the reader must keep up.
 *
 * A reader that takes more than it works on has a hidden backlog: its limit is measured by how long it
 * goes on working. One that drains less than it had kept up with, once it was overloaded, is metastable:
 * it has no single limit, and its bounds are from fresh readers.
 */
import type { Blame } from "./backlog.ts";
import type { Lab } from "./lab.ts";
import { LEAST_LEFT, RESERVE, saturate, type Saturated } from "./saturation.ts";
import { type Plan, SearchTrials } from "./search_trials.ts";
import { REASONS, type SearchOptions, type SearchResult } from "./search_result.ts";
import type { ServiceRate } from "./service.ts";

/** Trials of the ramp only give an estimate. Seconds. */
const RAMP: Plan = {
  purpose: "ramp",
  ...{ tolerance: 0.05, leastSeconds: 0.25, longest: 12, pauses: 2.5, messages: 3 },
};
/** Those that may become a bound; `longest` may be less where the time is short. */
const LONG = { leastSeconds: 2, longest: 15, pauses: 8, messages: 20 };
/** A reader whose speed varies may pause so seldom that shorter trials see no pause, or only that. Seconds. */
const VARIES_SECONDS = 5;
/** The stretch is offered so many times the estimate; a reader that pauses, more. */
const ABOVE = { steady: 1.1, pausing: 1.3, pause: 0.05 };
/** An overloaded reader that drains less than this part of a rate is slower than when it kept up with that. */
const CERTAIN = 0.9;
/**
 * A fresh reader is offered so much more than an overloaded one drains: as a share, and at least so many
 * times half of the interval that there would be after such a time. `unsure`: of one that pauses, which may seem faster than it
 * is in a short trial, and of one whose work is not seen, which may queue a little more for a while. The
 * second trial is longer: with a queue it then goes on working for `queues` of the time that the rest takes.
 */
const PROBE = {
  ...{
    above: 0.03,
    unsure: 0.15,
    halves: 1.25,
    leastSeconds: 1.5,
    pauses: 8,
    again: 4,
    queues: 0.4,
  },
};
/** A limit of our own is known to within this factor. */
const CEILING = 1.1;
/** The bounds of a metastable reader are at most this factor apart. */
const METASTABLE = 1.05;

/** Searches the limit; calls `lab` for one trial at a time and rejects where that rejects. */
export async function searchLimit(lab: Lab, options: SearchOptions): Promise<SearchResult> {
  const trials = new SearchTrials(lab, options);
  const search = new Search(trials, options);
  const result = await search.run();
  const { slowest, largestRead } = trials;
  const { service } = search;
  // One with a buffer of its own reads less often once that is full.
  const pause = trials.pauseAt(result.lower, result.hidden);
  const fastest = (seconds: number) => service?.fastest(seconds) ?? 0;
  return { slowest, pause, largestRead, fastest, ...result };
}

type Outcome = Omit<SearchResult, "slowest" | "pause" | "largestRead" | "fastest">;

class Search {
  /** Of the slowest reader. */
  service: ServiceRate | undefined;
  readonly #trials: SearchTrials;
  readonly #options: SearchOptions;
  /** The highest rate at which it kept up, and the lowest at which it did not. */
  #kept = 0;
  #failed = Infinity;
  /** How often a reader ended its connection when it was behind. */
  #ends = 0;
  /** Of the limit, from the last trial of the ramp in which it fell behind. */
  #estimate = 0;

  constructor(trials: SearchTrials, options: SearchOptions) {
    this.#trials = trials;
    this.#options = options;
  }

  async run(): Promise<Outcome> {
    const { minRate, maxRate, startRate } = this.#options;
    let from = Math.max(minRate, Math.min(startRate, maxRate));
    do {
      const capacity = await this.#ramp(from);
      if (typeof capacity !== "number") return capacity;
      const found = await this.#saturate(Math.max(capacity, this.#kept));
      if (found !== undefined) {
        // What a reader processes has been checked below already.
        const open = found.outcome === "found" && !found.hidden;
        return open ? await this.#confirm(found) : found;
      }
      // It was faster than estimated: its buffers may grow only while it is busy.
      this.#failed = Infinity;
      from = Math.min(maxRate, 2 * this.#kept);
    } while (this.#trials.left > LEAST_LEFT);
    return {
      ...{ outcome: "irregular", lower: this.#kept, upper: Infinity, reason: REASONS.outOfTime },
    };
  }

  /** From below, doubling. An estimate of the limit, or the outcome. */
  async #ramp(from: number): Promise<number | Outcome> {
    const { minRate, maxRate } = this.#options;
    let rate = from;
    let plan = RAMP;
    let again = false;
    while (true) {
      const tried = await this.#trials.judge(rate, plan);
      const { verdict, blame, capacity, works } = tried;
      if (works !== undefined) return await this.#processing(works);
      if (verdict === "keeps-up") {
        this.#kept = rate;
        again = false;
        if (rate >= maxRate) {
          const ceiling = await this.#ceiling("sender");
          if (ceiling !== undefined) return ceiling;
          return this.#kept;
        }
        if (2 * this.#kept >= this.#failed) return this.#estimate;
        rate = Math.min(2 * rate, maxRate);
        plan = RAMP;
        continue;
      }
      if (tried.readsSeldom && verdict === undefined && rate < maxRate) {
        // It waits for more than that: whether it keeps up shows at a higher rate.
        rate = Math.min(2 * rate, maxRate);
        continue;
      }
      if (!again && !tried.stopped && !tried.ended && capacity < CERTAIN * this.#kept) {
        // Slower than it had been, in a short trial: something may have disturbed it.
        again = true;
        continue;
      }
      again = false;
      this.#failed = rate;
      this.#estimate = capacity;
      if (tried.stopped && this.#kept > 0) return await this.#fresh(REASONS.stops);
      if (tried.ended) {
        this.#ends++;
        if (this.#kept > 0 && this.#ends > 1) return await this.#fresh(REASONS.ends);
      }
      if (verdict === "falls-behind" && blame !== "reader") {
        const ceiling = await this.#ceiling(blame);
        if (ceiling !== undefined) return ceiling;
        return this.#estimate;
      }
      if (2 * this.#kept >= rate) return capacity;
      if (rate <= minRate) {
        const slow: Outcome = {
          ...{ outcome: "below-range", lower: 0, upper: rate, reason: REASONS.tooSlow },
        };
        if (plan !== RAMP) return slow;
        // A short trial is not enough for this outcome.
        plan = { ...LONG, purpose: "confirm", tolerance: 0.01 };
        continue;
      }
      rate = Math.max(minRate, Math.min(rate / 4, capacity / 1.5 || Infinity));
    }
  }

  /**
   * The highest rate that can be offered, to within `CEILING`, where the reader is not the limit at
   * `#failed`, or there is no higher rate. Undefined: at a lower rate the reader is the limit.
   */
  async #ceiling(blame: Blame): Promise<Outcome | undefined> {
    const { precision, minRate, maxRate } = this.#options;
    let reason: Blame = blame;
    let capacity = this.#estimate;
    while (
      this.#failed / this.#kept > CEILING && this.#kept < maxRate && this.#trials.left > RESERVE
    ) {
      const guess = 0.97 * capacity;
      const fits = guess > 1.01 * this.#kept && guess < this.#failed / 1.01;
      const middle = Math.sqrt(Math.max(minRate, this.#kept) * this.#failed);
      const rate = Math.max(minRate, fits ? guess : middle);
      const tried = await this.#trials.judge(rate, { ...RAMP, tolerance: precision });
      if (tried.works !== undefined) return await this.#processing(tried.works);
      capacity = 0;
      if (tried.verdict === "keeps-up") {
        this.#kept = rate;
        continue;
      }
      this.#failed = rate;
      this.#estimate = tried.capacity;
      if (tried.verdict === "falls-behind" && tried.blame === "reader") return undefined;
      if (tried.verdict === "falls-behind") reason = tried.blame;
    }
    // The ramp's short trials are not enough for this outcome.
    let keepsUp = false;
    this.#kept = Math.max(minRate, this.#kept || 0.9 * this.#estimate);
    for (let step = 0; step < 4; step++) {
      const plan: Plan = { ...LONG, purpose: "confirm", tolerance: precision / 2 };
      const tried = await this.#trials.judge(this.#kept, plan);
      if (tried.works !== undefined) return await this.#processing(tried.works);
      keepsUp = tried.verdict === "keeps-up";
      if (keepsUp) break;
      this.#failed = Math.min(this.#failed, this.#kept);
      this.#estimate = tried.capacity;
      this.#kept = Math.max(minRate, 0.9 * this.#kept);
      if (tried.verdict === "falls-behind" && tried.blame === "reader") return undefined;
      if (this.#failed <= minRate) break;
    }
    if (keepsUp) return this.#limited(reason);
    return { outcome: "irregular", lower: 0, upper: this.#failed, reason: REASONS.unclear };
  }

  #limited(blame: Blame): Outcome {
    const { maxRate } = this.#options;
    const bounds = { lower: this.#kept, upper: Infinity };
    if (blame === "path") {
      return { outcome: "path-limited", ...bounds, reason: REASONS.pathLimit };
    }
    const reason = this.#kept >= maxRate ? REASONS.highestRate : REASONS.senderLimit;
    return { outcome: "generator-limited", ...bounds, reason };
  }

  /** Some above the estimate, while it is certainly backlogged. Undefined: it is faster than that. */
  async #saturate(capacity: number): Promise<Outcome | undefined> {
    const { maxRate } = this.#options;
    const { lab } = this.#trials;
    let estimate = capacity;
    for (let attempt = 0; attempt < 3; attempt++) {
      const above = this.#trials.pauseAt(estimate) > ABOVE.pause ? ABOVE.pausing : ABOVE.steady;
      const rate = Math.min(maxRate, estimate * above);
      const options = { ...this.#options, rate, estimate, kept: this.#kept };
      const saturation = await saturate(this.#trials, options);
      switch (saturation.is) {
        case "ended":
          // Once may be chance.
          if (++this.#ends > 1) return await this.#fresh(REASONS.ends);
          await lab.settle({ verdict: "falls-behind" }, true);
          break;
        case "stopped":
          await lab.settle({ verdict: "falls-behind" }, true);
          this.#failed = Math.min(this.#failed, rate);
          return await this.#fresh(REASONS.stops);
        case "collapsed": {
          await lab.settle({ verdict: "falls-behind" }, false);
          const metastable = await this.#collapses(saturation.drained);
          if (metastable !== undefined) return metastable;
          estimate = Math.max(this.#kept, saturation.drained);
          break;
        }
        case "measured":
          await lab.settle({ verdict: "falls-behind" }, false);
          return await this.#measured(saturation.found);
        case "unknown": {
          await lab.settle({ verdict: "inconclusive" }, false);
          if (saturation.blame === "reader") break;
          this.#failed = Math.min(this.#failed, rate);
          const ceiling = await this.#ceiling(saturation.blame);
          if (ceiling !== undefined) return ceiling;
          estimate = Math.max(this.#kept, this.#estimate);
          break;
        }
        case "caught-up": {
          const { seconds } = saturation;
          const hidden = await lab.look();
          const works = await this.#trials.processed(rate, { seconds, hidden }, false);
          if (works !== undefined) return await this.#processing(works);
          await lab.settle({ verdict: "keeps-up" }, false);
          this.#kept = Math.max(this.#kept, rate);
          if (rate >= maxRate) return this.#limited("sender");
          if (attempt > 0) return undefined;
          // The ramp's estimate was too low: on to the middle of what is known by now.
          estimate = this.#failed < Infinity ? Math.sqrt(rate * this.#failed) / above : rate;
          estimate = Math.max(rate, estimate);
        }
      }
      if (this.#trials.left < LEAST_LEFT) break;
    }
    if (this.#failed <= this.#kept) this.#failed = Infinity;
    const reason = this.#trials.left < LEAST_LEFT ? REASONS.outOfTime : REASONS.neverBehind;
    return { outcome: "irregular", lower: this.#kept, upper: this.#failed, reason };
  }

  async #measured(found: Saturated): Promise<Outcome> {
    const { lower, upper, slowest, service, drift, seconds, needed } = found;
    this.#trials.slowest = slowest;
    this.service = service;
    if (drift !== undefined) {
      const reason = drift.last < drift.first ? REASONS.slows : REASONS.speedsUp;
      return { outcome: "irregular", lower, upper, drift, reason };
    }
    const metastable = upper < CERTAIN * this.#kept
      ? await this.#collapses(upper)
      : await this.#faster(found);
    if (metastable !== undefined) return metastable;
    if (lower === 0) {
      // So little is known that there is no rate to confirm.
      return { outcome: "irregular", lower: this.#kept, upper, reason: REASONS.varies };
    }
    // The other trials took the rest of the time so far.
    const others = this.#trials.lab.seconds() - seconds + RESERVE;
    return { outcome: "found", lower, upper, needs: others + needed };
  }

  /**
   * Whether it drains less once it was overloaded than it had kept up with: fresh readers are asked whether
   * they keep up with that. Undefined: they do not, so that was a mistake.
   */
  async #collapses(saturated: number): Promise<Outcome | undefined> {
    await this.#freshKeeps();
    return saturated > CERTAIN * this.#kept ? undefined : await this.#closer(REASONS.metastable);
  }

  /**
   * Whether a fresh reader keeps up with more than an overloaded one drains: then it is metastable. Undefined:
   * it does not.
   */
  async #faster({ upper, seconds, halfWidth }: Saturated): Promise<Outcome | undefined> {
    const { lab } = this.#trials;
    await lab.settle({ verdict: "inconclusive" }, true);
    const pause = this.#trials.pauseAt(upper);
    const shortest = Math.max(PROBE.leastSeconds, PROBE.pauses * pause);
    const half = halfWidth * Math.sqrt(seconds / shortest);
    const sure = pause <= ABOVE.pause && this.#trials.seesWork;
    const above = Math.max(sure ? PROBE.above : PROBE.unsure, PROBE.halves * half);
    const rate = Math.min(this.#options.maxRate, (1 + above) * upper);
    for (const again of [0, PROBE.again]) {
      const leastSeconds = shortest + again;
      const plan: Plan = {
        ...{
          purpose: "bound",
          tolerance: 0.01,
          leastSeconds,
          longest: 4 * leastSeconds,
          pauses: 4,
        },
        messages: LONG.messages,
      };
      const tried = await this.#trials.judge(rate, plan, "always");
      const { works, verdict, hidden } = tried;
      if (works !== undefined) return await this.#processing(works);
      if (verdict !== "keeps-up" || rate <= upper) return undefined;
      // The end of its work is not known well enough to say that of a short trial.
      const queued = again > 0 && hidden !== undefined &&
        hidden.seconds > PROBE.queues * above * tried.seconds;
      if (queued) return undefined;
    }
    this.#kept = Math.max(this.#kept, rate);
    return await this.#closer(REASONS.metastable);
  }

  /** For one that does not come back once it has fallen behind. */
  async #fresh(reason: string): Promise<Outcome> {
    await this.#freshKeeps();
    return await this.#closer(reason);
  }

  /** Down to a rate with which a fresh reader keeps up. */
  async #freshKeeps(): Promise<void> {
    await this.#trials.lab.settle({ verdict: "inconclusive" }, true);
    for (let step = 0; step < 6; step++) {
      if (await this.#keepsWhenFresh(this.#kept)) return;
      this.#failed = Math.min(this.#failed, this.#kept);
      this.#kept *= 0.8;
    }
    this.#kept = 0;
  }

  async #keepsWhenFresh(rate: number): Promise<boolean> {
    const leastSeconds = Math.max(2, 16 * this.#trials.pauseAt(rate));
    const plan: Plan = {
      ...{ purpose: "bound", tolerance: 0.01, leastSeconds, longest: 3 * leastSeconds, pauses: 8 },
      messages: LONG.messages,
    };
    const { verdict, works } = await this.#trials.judge(rate, plan, "always");
    // With a hidden backlog it does not keep up.
    return verdict === "keeps-up" && works === undefined;
  }

  /** Closer from below, with a fresh reader each time. */
  async #closer(reason: string): Promise<Outcome> {
    this.#failed = Math.min(this.#failed, 2 * this.#kept);
    while (this.#kept > 0 && this.#failed / this.#kept > METASTABLE && this.#trials.left > 0) {
      const rate = Math.sqrt(this.#kept * this.#failed);
      if (await this.#keepsWhenFresh(rate)) this.#kept = rate;
      else this.#failed = rate;
    }
    return { outcome: "irregular", lower: this.#kept, upper: this.#failed, reason };
  }

  /** From below it must keep up: so the speed of a full socket is that of one that is read in time. */
  async #confirm({ lower, upper, needs = 0 }: Outcome): Promise<Outcome> {
    const { precision } = this.#options;
    const varies = upper / lower > 1 + precision * 1.01;
    const shortest = varies ? VARIES_SECONDS : LONG.leastSeconds;
    const leastSeconds = Math.max(shortest, 8 * this.#trials.pauseAt(lower));
    const longest = Math.max(3 * leastSeconds, Math.min(LONG.longest, this.#trials.left));
    for (let step = 0; step < 4; step++) {
      const rate = lower * (1 - precision / 4) * (1 - 2 * precision) ** step;
      if (rate <= 0) break;
      const plan: Plan = {
        ...{ purpose: "confirm", tolerance: precision / 2, leastSeconds, longest, pauses: 4 },
        messages: LONG.messages,
      };
      const { verdict, works } = await this.#trials.judge(rate, plan, "unless-kept");
      if (works !== undefined) return await this.#processing(works);
      if (verdict !== "keeps-up") continue;
      if (step > 1) {
        return { outcome: "irregular", lower: rate, upper, reason: REASONS.slowerBelow };
      }
      const least = step > 0 ? rate : lower;
      const wide = upper / least > 1 + precision * 1.01;
      return {
        ...{ outcome: "found", lower: least, upper },
        ...(wide ? { reason: REASONS.varies, needs } : {}),
      };
    }
    return { outcome: "irregular", lower: 0, upper, reason: REASONS.slowerBelow };
  }

  async #processing(capacity: number): Promise<Outcome> {
    const found = await this.#trials.processing(capacity);
    if (found === undefined) {
      const reason = REASONS.noEnd;
      return { outcome: "irregular", lower: 0, upper: capacity, hidden: true, reason };
    }
    const { lower, upper, confirmed } = found;
    if (confirmed) return { outcome: "found", lower, upper, hidden: true };
    return { outcome: "irregular", lower, upper, hidden: true, reason: REASONS.slowerBelow };
  }
}
