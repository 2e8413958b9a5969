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
import { Backlog, type Blame } from "./backlog.ts";
import { type HiddenBacklog, isBehind, isConfirmed } from "./hidden_backlog.ts";
import type { Judged, Lab, SearchPhase } from "./lab.ts";
import { BLOCKED, measureProcessing } from "./processing.ts";
import type { Drift, ServiceRate } from "./service.ts";
import { Stretch } from "./stretch.ts";

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
  /** Its speed changes the longer it runs: `lower` and `upper` are not a limit. */
  drift?: Drift;
  /** Of several readers, the one with the lowest limit; from 0. */
  slowest: number;
  /** The longest time without a read at rates near `lower`; seconds. */
  pause: number;
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
  varies: "the reader's speed varies, so the interval is wider than requested",
  outOfTime: "there was not enough time to find the limit",
} as const;

interface Plan {
  purpose: SearchPhase;
  tolerance: number;
  leastSeconds: number;
  longest: number;
  pauses: number;
  messages: number;
}

/** Trials of the ramp only give an estimate. Seconds. */
const RAMP: Plan = {
  ...{
    purpose: "ramp",
    tolerance: 0.05,
    leastSeconds: 0.25,
    longest: 12,
    pauses: 2.5,
    messages: 3,
  },
};
/** Those that may become a bound; `longest` may be less where the time is short. */
const LONG = { leastSeconds: 2, longest: 15, pauses: 8, messages: 20 };
/** A trial that is not clear after so many times its shortest length will not get clear. */
const UNCLEAR = { times: 4, pauses: 8 };
/** One that has not read twice in this time is offered more. Seconds. */
const SELDOM = 4;
/** Pauses at rates down to that part of a rate count for it. */
const NEAR = 4;
/** The stretch is offered so many times the estimate; a reader that pauses, more. */
const ABOVE = { steady: 1.1, pausing: 1.3, pause: 0.05 };
/** A pause that comes each 4 s is then seen twice; less where the time is short. Seconds. */
const FIRST_LOOK = { usual: 8, least: 3, pauses: 16, messages: 20 };
/** Kept for the trials after the stretch; seconds. */
const RESERVE = 10;
/** A limit of our own is known to within this factor. */
const CEILING = 1.1;
/** The bounds of a metastable reader are at most this factor apart. */
const METASTABLE = 1.05;

/** Searches the limit; calls `lab` for one trial at a time and rejects where that rejects. */
export async function searchLimit(lab: Lab, options: SearchOptions): Promise<SearchResult> {
  const search = new Search(lab, options);
  const result = await search.run();
  const { slowest, service } = search;
  const pause = search.pauseAt(result.lower);
  return { slowest, pause, fastest: (seconds) => service?.fastest(seconds) ?? 0, ...result };
}

type Outcome = Omit<SearchResult, "slowest" | "pause" | "fastest">;

interface Tried {
  verdict: "keeps-up" | "falls-behind" | undefined;
  blame: Blame;
  /** An estimate of the limit, bytes a second. */
  capacity: number;
  seconds: number;
  hidden: HiddenBacklog | undefined;
  ended: boolean;
  /** See `Backlog`. */
  stopped: boolean;
  readsSeldom: boolean;
}

class Search {
  slowest = 0;
  /** Of the slowest reader. */
  service: ServiceRate | undefined;
  readonly #lab: Lab;
  readonly #options: SearchOptions;
  #largestRead = 0;
  /** The longest pause of each trial; seconds. */
  readonly #pauses: { rate: number; pause: number; keptUp: boolean }[] = [];
  /** The highest rate at which it kept up, and the lowest at which it did not. */
  #kept = 0;
  #failed = Infinity;

  constructor(lab: Lab, options: SearchOptions) {
    this.#lab = lab;
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
        return found.outcome === "found" ? await this.#confirm(found) : found;
      }
      // It was faster than estimated: its buffers may grow only while it is busy.
      this.#failed = Infinity;
      from = Math.min(maxRate, 2 * this.#kept);
    } while (this.#left() > RESERVE);
    return {
      ...{ outcome: "irregular", lower: this.#kept, upper: Infinity, reason: REASONS.outOfTime },
    };
  }

  /**
   * The longest pause at such rates; seconds. At much lower ones, a reader that waits for a certain number
   * of bytes pauses longer.
   */
  pauseAt(rate: number): number {
    let near = this.#pauses.filter((each) => each.rate >= rate / NEAR);
    // One that is behind may stand still for other reasons.
    if (near.some(({ keptUp }) => keptUp)) near = near.filter(({ keptUp }) => keptUp);
    return Math.max(0, ...near.map(({ pause }) => pause));
  }

  #left(): number {
    return this.#options.time - this.#lab.seconds();
  }

  /** Offers a rate until the verdict is clear. `settle` has to follow. */
  async #try(rate: number, plan: Plan): Promise<Tried> {
    const { messageSize } = this.#options;
    const { purpose, leastSeconds } = plan;
    const backlogs = Array.from(
      { length: this.#lab.readers },
      () => new Backlog({ ...plan, rate, messageSize }),
    );
    let verdicts = backlogs.map((backlog) => backlog.verdict());
    let nextLook = leastSeconds;
    let worst = 0;
    const messages = 1.25 * plan.messages * messageSize / rate;
    const longest = Math.max(plan.longest, messages);
    const offered = await this.#lab.offer({ rate, purpose, longest }, (samples) => {
      samples.forEach((sample, i) => backlogs[i]!.add(sample));
      const { time } = samples[0]!;
      if (time < nextLook) return false;
      nextLook = time + 0.05;
      verdicts = backlogs.map((backlog) => backlog.verdict());
      const behind = verdicts.findIndex(({ verdict }) => verdict === "falls-behind");
      worst = behind >= 0 ? behind : verdicts.findIndex(({ verdict }) => verdict === undefined);
      if (behind >= 0 || worst < 0) return true;
      if (backlogs[worst]!.readsSeldom) return time > Math.max(SELDOM, leastSeconds, messages);
      const { times, pauses } = UNCLEAR;
      return time > Math.max(times * leastSeconds, 1, pauses * backlogs[worst]!.pause, messages);
    });
    for (const { largestRead, pause } of backlogs) {
      this.#largestRead = Math.max(this.#largestRead, largestRead);
      this.#pauses.push({ rate, pause, keptUp: worst < 0 });
    }
    const { verdict, blame, slope, stopped } = verdicts[Math.max(0, worst)]!;
    const { drained, seconds, readsSeldom } = backlogs[Math.max(0, worst)]!;
    if (offered.ended) {
      await this.#lab.settle({ verdict: "falls-behind" }, true);
      const capacity = drained / Math.max(1e-9, seconds);
      return {
        ...{ verdict: "falls-behind", blame: "reader", capacity, hidden: undefined },
        ...{ seconds: offered.seconds, ended: true, stopped: false, readsSeldom: false },
      };
    }
    if (verdict !== "keeps-up" && worst >= 0) this.slowest = worst;
    const hidden = verdict === "keeps-up" ? await this.#lab.look() : undefined;
    return {
      verdict,
      blame,
      capacity: Math.max(0, Math.min(drained / Math.max(1e-9, seconds), rate - slope)),
      seconds: offered.seconds,
      ...{ hidden, stopped, readsSeldom, ended: false },
    };
  }

  async #settle({ verdict, ended, capacity }: Tried, rate: number, fresh: boolean): Promise<void> {
    if (ended) return;
    const judged: Judged = { verdict: verdict ?? "inconclusive" };
    if (verdict !== undefined) judged.slope = rate - capacity;
    await this.#lab.settle(judged, fresh);
  }

  /** From below, doubling. An estimate of the limit, or the outcome. */
  async #ramp(from: number): Promise<number | Outcome> {
    const { minRate, maxRate } = this.#options;
    let rate = from;
    let plan = RAMP;
    while (true) {
      const tried = await this.#try(rate, plan);
      const works = await this.#processed(rate, tried, plan === RAMP);
      if (works !== undefined) return await this.#processing(works);
      const { verdict, blame, capacity } = tried;
      await this.#settle(tried, rate, false);
      if (verdict === "keeps-up") {
        this.#kept = rate;
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
      this.#failed = rate;
      this.#estimate = capacity;
      if (tried.stopped && this.#kept > 0) return await this.#fresh(REASONS.stops);
      if (tried.ended && this.#kept > 0) return await this.#fresh(REASONS.ends);
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

  /** From the last trial of the ramp in which it fell behind. */
  #estimate = 0;

  /**
   * The highest rate that can be offered, to within `CEILING`, where the reader is not the limit at
   * `#failed`, or there is no higher rate. Undefined: at a lower rate the reader is the limit.
   */
  async #ceiling(blame: Blame): Promise<Outcome | undefined> {
    const { precision, minRate, maxRate } = this.#options;
    let reason: Blame = blame;
    let capacity = this.#estimate;
    while (this.#failed / this.#kept > CEILING && this.#kept < maxRate && this.#left() > RESERVE) {
      const guess = 0.97 * capacity;
      const fits = guess > 1.01 * this.#kept && guess < this.#failed / 1.01;
      const middle = Math.sqrt(Math.max(minRate, this.#kept) * this.#failed);
      const rate = Math.max(minRate, fits ? guess : middle);
      const tried = await this.#try(rate, { ...RAMP, tolerance: precision });
      await this.#settle(tried, rate, false);
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
    for (let step = 0; step < 4 && !keepsUp; step++) {
      const plan: Plan = { ...LONG, purpose: "confirm", tolerance: precision / 2 };
      const tried = await this.#try(this.#kept, plan);
      const works = await this.#processed(this.#kept, tried, false);
      if (works !== undefined) return await this.#processing(works);
      await this.#settle(tried, this.#kept, false);
      keepsUp = tried.verdict === "keeps-up";
      if (keepsUp) break;
      this.#failed = Math.min(this.#failed, this.#kept);
      this.#estimate = tried.capacity;
      this.#kept = Math.max(minRate, 0.9 * this.#kept);
      if (tried.verdict === "falls-behind" && tried.blame === "reader") return undefined;
    }
    if (!keepsUp) this.#kept = 0;
    return this.#limited(reason);
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
    const { maxRate, precision } = this.#options;
    let estimate = capacity;
    for (let attempt = 0; attempt < 3; attempt++) {
      const above = this.pauseAt(estimate) > ABOVE.pause ? ABOVE.pausing : ABOVE.steady;
      const rate = Math.min(maxRate, estimate * above);
      const { stretches, seconds, ended } = await this.#stretch(rate, estimate);
      if (ended) return await this.#fresh(REASONS.ends);
      if (stretches.some(({ result }) => result.stopped)) {
        await this.#lab.settle({ verdict: "falls-behind" }, true);
        this.#failed = Math.min(this.#failed, rate);
        return await this.#fresh(REASONS.stops);
      }
      const found = stretches.flatMap(({ result: { estimate }, drift }, reader) =>
        estimate === undefined || estimate.halfWidth === Infinity
          ? []
          : { ...estimate, drift, reader }
      );
      const caughtUp = stretches.every(({ result }) => result.caughtUp);
      if (found.length === 0 && caughtUp) {
        const hidden = await this.#lab.look();
        const works = await this.#processed(rate, { seconds, hidden }, false);
        if (works !== undefined) return await this.#processing(works);
      }
      const collapsed = stretches.find(({ result }) => result.collapsed);
      const behind = found.length > 0 || collapsed !== undefined;
      const verdict = behind ? "falls-behind" : caughtUp ? "keeps-up" : "inconclusive";
      await this.#lab.settle({ verdict }, false);
      if (collapsed !== undefined) {
        const metastable = await this.#collapses(collapsed.drained);
        if (metastable !== undefined) return metastable;
        estimate = Math.max(this.#kept, collapsed.drained);
        continue;
      }
      if (found.length > 0) {
        const slowest = found.reduce((least, each) => each.mean < least.mean ? each : least);
        this.slowest = slowest.reader;
        this.service = stretches[slowest.reader]!.service;
        const half = (each: typeof slowest) => Math.max(each.halfWidth, precision / 4 * each.mean);
        const lower = Math.max(0, Math.min(...found.map((each) => each.mean - half(each))));
        const upper = Math.min(...found.map((each) => each.mean + half(each)));
        const drift = found.find((each) => each.drift !== undefined)?.drift;
        if (drift !== undefined) {
          const reason = drift.last < drift.first ? REASONS.slows : REASONS.speedsUp;
          return { outcome: "irregular", lower, upper, drift, reason };
        }
        if (upper < 0.9 * this.#kept) {
          const metastable = await this.#collapses(upper);
          if (metastable !== undefined) return metastable;
        }
        return { outcome: "found", lower, upper };
      }
      if (!caughtUp) {
        const other = stretches.find(({ result }) => result.blame !== "reader")?.result.blame;
        if (other !== undefined) return this.#limited(other);
      } else {
        this.#kept = Math.max(this.#kept, rate);
        if (rate >= maxRate) return this.#limited("sender");
        if (attempt > 0) return undefined;
        estimate = rate;
      }
      if (this.#left() < RESERVE) break;
    }
    if (this.#failed <= this.#kept) this.#failed = Infinity;
    const reason = this.#left() < RESERVE ? REASONS.outOfTime : REASONS.neverBehind;
    return { outcome: "irregular", lower: this.#kept, upper: this.#failed, reason };
  }

  async #stretch(rate: number, estimate: number) {
    const { messageSize, precision, confidence, onInterval } = this.#options;
    const { usual, least, pauses, messages } = FIRST_LOOK;
    const left = this.#left() - RESERVE;
    const pause = this.pauseAt(rate);
    const firstLook = Math.max(
      Math.min(usual, Math.max(least, left)),
      pauses * pause,
      messages * messageSize / estimate,
    );
    const lastLook = Math.max(firstLook, left);
    const stretches = Array.from({ length: this.#lab.readers }, () =>
      new Stretch({
        ...{ rate, messageSize, error: (1 - confidence) / this.#lab.readers },
        ...{ halfWidth: precision / 2, firstLook, lastLook },
        ...{ largestRead: this.#largestRead, pause, kept: this.#kept },
        onLook: () => looked = true,
      }));
    let looked = false;
    const tell = () => {
      const known = stretches.flatMap(({ result: { estimate } }) =>
        estimate === undefined || estimate.halfWidth === Infinity ? [] : estimate
      );
      if (known.length < stretches.length) return;
      const slowest = known.reduce((least, each) => each.mean < least.mean ? each : least);
      // The width falls with the square root of the time.
      const { seconds } = slowest;
      const needed = seconds * (slowest.halfWidth / (precision / 2 * slowest.mean)) ** 2;
      const until = Math.min(lastLook, Math.max(seconds, needed));
      onInterval?.({
        lower: Math.max(0, Math.min(...known.map(({ mean, halfWidth }) => mean - halfWidth))),
        upper: Math.min(...known.map(({ mean, halfWidth }) => mean + halfWidth)),
        secondsLeft: until - seconds + RESERVE,
      });
    };
    const longest = Math.max(1.5 * firstLook, left);
    const { seconds, ended } = await this.#lab.offer(
      { rate, purpose: "saturate", longest },
      (samples) => {
        let over = true;
        for (let i = 0; i < samples.length; i++) over = stretches[i]!.add(samples[i]!) && over;
        if (looked) tell();
        looked = false;
        return over;
      },
    );
    for (const stretch of stretches) stretch.finish();
    return { stretches, seconds, ended };
  }

  /**
   * Whether it drains less once it was overloaded than it had kept up with: fresh readers are asked whether
   * they keep up with that. Undefined: they do not, so that was a mistake.
   */
  async #collapses(saturated: number): Promise<Outcome | undefined> {
    await this.#freshKeeps();
    return saturated > 0.9 * this.#kept ? undefined : await this.#closer(REASONS.metastable);
  }

  /** For one that does not come back once it has fallen behind. */
  async #fresh(reason: string): Promise<Outcome> {
    await this.#freshKeeps();
    return await this.#closer(reason);
  }

  /** Down to a rate with which a fresh reader keeps up. */
  async #freshKeeps(): Promise<void> {
    await this.#lab.settle({ verdict: "inconclusive" }, true);
    for (let step = 0; step < 6; step++) {
      if (await this.#keepsWhenFresh(this.#kept)) return;
      this.#failed = Math.min(this.#failed, this.#kept);
      this.#kept *= 0.8;
    }
    this.#kept = 0;
  }

  async #keepsWhenFresh(rate: number): Promise<boolean> {
    const leastSeconds = Math.max(3, 16 * this.pauseAt(rate));
    const tried = await this.#try(rate, {
      ...{ purpose: "bound", tolerance: 0.01, leastSeconds, longest: 3 * leastSeconds, pauses: 8 },
      messages: LONG.messages,
    });
    await this.#settle(tried, rate, true);
    return tried.verdict === "keeps-up";
  }

  /** Closer from below, with a fresh reader each time. */
  async #closer(reason: string): Promise<Outcome> {
    this.#failed = Math.min(this.#failed, 2 * this.#kept);
    while (this.#kept > 0 && this.#failed / this.#kept > METASTABLE && this.#left() > 0) {
      const rate = Math.sqrt(this.#kept * this.#failed);
      if (await this.#keepsWhenFresh(rate)) this.#kept = rate;
      else this.#failed = rate;
    }
    return { outcome: "irregular", lower: this.#kept, upper: this.#failed, reason };
  }

  /** From below it must keep up: so the speed of a full socket is that of one that is read in time. */
  async #confirm({ lower, upper }: Outcome): Promise<Outcome> {
    const { precision } = this.#options;
    const leastSeconds = Math.max(LONG.leastSeconds, 8 * this.pauseAt(lower));
    const longest = Math.max(3 * leastSeconds, Math.min(LONG.longest, this.#left()));
    for (let step = 0; step < 4; step++) {
      const rate = lower * (1 - precision / 4) * (1 - 2 * precision) ** step;
      if (rate <= 0) break;
      const plan: Plan = {
        ...{ purpose: "confirm", tolerance: precision / 2, leastSeconds, longest, pauses: 4 },
        messages: LONG.messages,
      };
      const tried = await this.#try(rate, plan);
      const works = await this.#processed(rate, tried, false);
      if (works !== undefined) return await this.#processing(works);
      await this.#settle(tried, rate, tried.verdict !== "keeps-up");
      if (tried.verdict !== "keeps-up") continue;
      if (step > 1) {
        return { outcome: "irregular", lower: rate, upper, reason: REASONS.slowerBelow };
      }
      const least = step > 0 ? rate : lower;
      const wide = upper / least > 1 + precision * 1.01;
      return {
        ...{ outcome: "found", lower: least, upper },
        ...(wide ? { reason: REASONS.varies } : {}),
      };
    }
    return { outcome: "irregular", lower: 0, upper, reason: REASONS.slowerBelow };
  }

  /** An estimate of what a reader processes that takes more than that; undefined where it does not. */
  async #processed(
    rate: number,
    { seconds, hidden }: Pick<Tried, "seconds" | "hidden">,
    ramp: boolean,
  ): Promise<number | undefined> {
    const pause = this.pauseAt(rate);
    if (hidden === undefined || !isBehind(hidden, { seconds, pause, ramp })) return undefined;
    await this.#lab.settle({ verdict: "falls-behind" }, !hidden.quiet);
    const again = await this.#work(rate, Math.max(1, 2 * seconds));
    if (again === undefined) return undefined;
    const blocked = again.bytes < BLOCKED * rate * again.seconds;
    if (!blocked && !isConfirmed({ hidden, seconds }, again, pause)) return undefined;
    return again.bytes / (again.seconds + again.hidden.seconds);
  }

  /** Offers that rate for so long; how long the reader then goes on working. */
  async #work(rate: number, longest: number) {
    const offered = await this.#lab.offer({ rate, purpose: "work", longest }, () => false);
    const hidden = offered.ended ? undefined : await this.#lab.look();
    const { seconds } = offered;
    const behind = hidden !== undefined && isBehind(hidden, { seconds, pause: this.pauseAt(rate) });
    const verdict = hidden === undefined ? "inconclusive" : behind ? "falls-behind" : "keeps-up";
    await this.#lab.settle({ verdict }, hidden !== undefined && !hidden.quiet);
    return hidden && { hidden, ...offered };
  }

  async #processing(capacity: number): Promise<Outcome> {
    const found = await measureProcessing(
      capacity,
      { ...this.#options, pause: this.pauseAt(capacity) },
      (rate, length) => this.#work(rate, length),
    );
    if (found === undefined) {
      return {
        outcome: "irregular",
        lower: 0,
        upper: capacity,
        hidden: true,
        reason: REASONS.noEnd,
      };
    }
    const { lower, upper, confirmed } = found;
    if (confirmed) return { outcome: "found", lower, upper, hidden: true };
    return { outcome: "irregular", lower, upper, hidden: true, reason: REASONS.slowerBelow };
  }
}
