/** The trials of one search, with what is learned of the reader's pauses on the way. */
import { Backlog, type Blame } from "./backlog.ts";
import { type HiddenBacklog, isBehind, isConfirmed } from "./hidden_backlog.ts";
import type { Judged, Lab, SearchPhase } from "./lab.ts";
import { BLOCKED, measureProcessing } from "./processing.ts";

/** How long a trial takes, and how exact its verdict is. */
export interface Plan {
  purpose: SearchPhase;
  /** See `BacklogOptions`. */
  tolerance: number;
  leastSeconds: number;
  /** Seconds. */
  longest: number;
  pauses: number;
  messages: number;
}

/** What a trial has shown. */
export interface Tried {
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

/** A trial that is not clear after so many times its shortest length will not get clear. */
const UNCLEAR = { times: 4, pauses: 8 };
/** One that has not read twice in this time is offered more. Seconds. */
const SELDOM = 4;
/** Pauses at rates down to that part of a rate count for it. */
const NEAR = 4;

export interface SearchTrialsOptions {
  messageSize: number;
  confidence: number;
  /** Seconds for all trials. */
  time: number;
}

export class SearchTrials {
  readonly lab: Lab;
  /** Of several readers, the one that was last behind; from 0. */
  slowest = 0;
  /** The largest number of bytes read between two samples. */
  largestRead = 0;
  /** Whether the readers go on working after a trial can be seen. */
  seesWork = false;
  readonly #options: SearchTrialsOptions;
  /** The longest pause of each trial; seconds. */
  readonly #pauses: { rate: number; pause: number; keptUp: boolean }[] = [];

  constructor(lab: Lab, options: SearchTrialsOptions) {
    this.lab = lab;
    this.#options = options;
  }

  /**
   * The longest pause at such rates; seconds. At much lower ones, a reader that waits for a certain number
   * of bytes pauses longer. `behind`: also when it was behind, where it may stand still for other reasons.
   */
  pauseAt(rate: number, behind = false): number {
    let near = this.#pauses.filter((each) => each.rate >= rate / NEAR);
    if (!behind && near.some(({ keptUp }) => keptUp)) near = near.filter(({ keptUp }) => keptUp);
    return Math.max(0, ...near.map(({ pause }) => pause));
  }

  /** The time that is left; seconds. */
  get left(): number {
    return this.#options.time - this.lab.seconds();
  }

  /** Offers a rate until the verdict is clear, and ends the trial. `fresh`: with new readers after it. */
  async judge(
    rate: number,
    plan: Plan,
    fresh: "never" | "always" | "unless-kept" = "never",
  ): Promise<Tried & { works: number | undefined }> {
    const tried = await this.try(rate, plan);
    const works = await this.processed(rate, tried, plan.purpose === "ramp");
    const replace = fresh === "always" || tried.stopped ||
      (fresh !== "never" && tried.verdict !== "keeps-up");
    await this.settle(tried, rate, replace);
    return { ...tried, works };
  }

  #backlogs(rate: number, plan: Plan): Backlog[] {
    const { messageSize } = this.#options;
    const { readers } = this.lab;
    return Array.from({ length: readers }, () => new Backlog({ ...plan, rate, messageSize }));
  }

  /** Offers a rate until the verdict is clear. `settle` has to follow. */
  async try(rate: number, plan: Plan): Promise<Tried> {
    const { messageSize } = this.#options;
    const { purpose, leastSeconds } = plan;
    const backlogs = this.#backlogs(rate, plan);
    let verdicts = backlogs.map((backlog) => backlog.verdict());
    let nextLook = leastSeconds;
    let worst = 0;
    const messages = 1.25 * plan.messages * messageSize / rate;
    const longest = Math.max(plan.longest, messages);
    const offered = await this.lab.offer({ rate, purpose, longest }, (samples) => {
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
    this.#learn(rate, backlogs, worst < 0);
    const { verdict, blame, slope, stopped } = verdicts[Math.max(0, worst)]!;
    const { drained, seconds, readsSeldom } = backlogs[Math.max(0, worst)]!;
    if (offered.ended === "lost") {
      await this.lab.settle({ verdict: "inconclusive" }, true);
      return await this.try(rate, plan);
    }
    if (offered.ended === "behind") {
      await this.lab.settle({ verdict: "falls-behind" }, true);
      const capacity = drained / Math.max(1e-9, seconds);
      return {
        ...{ verdict: "falls-behind", blame: "reader", capacity, hidden: undefined },
        ...{ seconds: offered.seconds, ended: true, stopped: false, readsSeldom: false },
      };
    }
    if (worst >= 0) this.slowest = worst;
    const hidden = verdict === "keeps-up" ? await this.lab.look() : undefined;
    if (hidden !== undefined) this.seesWork = true;
    return {
      verdict,
      blame,
      capacity: Math.max(0, Math.min(drained / Math.max(1e-9, seconds), rate - slope)),
      seconds: offered.seconds,
      ...{ hidden, stopped, readsSeldom, ended: false },
    };
  }

  #learn(rate: number, backlogs: readonly Backlog[], keptUp: boolean): void {
    for (const { largestRead, pause } of backlogs) {
      this.largestRead = Math.max(this.largestRead, largestRead);
      this.#pauses.push({ rate, pause, keptUp });
    }
  }

  /** Ends the trial; `fresh`: with new readers after it. */
  async settle({ verdict, ended, capacity }: Tried, rate: number, fresh: boolean): Promise<void> {
    if (ended) return;
    const judged: Judged = { verdict: verdict ?? "inconclusive" };
    if (verdict !== undefined) judged.slope = rate - capacity;
    await this.lab.settle(judged, fresh);
  }

  /**
   * An estimate of what a reader processes that takes more than that; undefined where it does not. Then the
   * trial has to be settled still.
   */
  async processed(
    rate: number,
    { seconds, hidden }: Pick<Tried, "seconds" | "hidden">,
    ramp: boolean,
  ): Promise<number | undefined> {
    const pause = this.pauseAt(rate);
    if (hidden === undefined || !isBehind(hidden, { seconds, pause, ramp })) return undefined;
    await this.lab.settle({ verdict: "falls-behind" }, !hidden.quiet);
    const again = await this.#work(rate, Math.max(1, 2 * seconds));
    if (again === undefined) return undefined;
    const blocked = again.bytes < BLOCKED * rate * again.seconds;
    if (!blocked && !isConfirmed({ hidden, seconds }, again, pause)) return undefined;
    return again.bytes / (again.seconds + again.hidden.seconds);
  }

  /** Offers that rate for so long; how long the reader then goes on working. */
  async #work(rate: number, longest: number) {
    const plan: Plan = {
      ...{
        purpose: "work",
        tolerance: 0.01,
        leastSeconds: longest,
        longest,
        pauses: 0,
        messages: 0,
      },
    };
    const backlogs = this.#backlogs(rate, plan);
    const offered = await this.lab.offer({ rate, purpose: "work", longest }, (samples) => {
      samples.forEach((sample, i) => backlogs[i]!.add(sample));
      return false;
    });
    this.#learn(rate, backlogs, false);
    const hidden = offered.ended !== undefined ? undefined : await this.lab.look();
    const { seconds } = offered;
    const behind = hidden !== undefined && isBehind(hidden, { seconds, pause: this.pauseAt(rate) });
    const verdict = hidden === undefined ? "inconclusive" : behind ? "falls-behind" : "keeps-up";
    await this.lab.settle({ verdict }, hidden !== undefined && !hidden.quiet);
    return hidden && { hidden, ...offered };
  }

  /** See `measureProcessing`. */
  async processing(capacity: number): ReturnType<typeof measureProcessing> {
    const options = { ...this.#options, pause: this.pauseAt(capacity) };
    return await measureProcessing(capacity, options, (rate, length) => this.#work(rate, length));
  }
}
