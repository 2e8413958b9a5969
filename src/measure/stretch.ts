/**
 * A stretch of time in which a reader always has something to read: what it drains is its service rate.
 *
 * It is chosen by the backlog alone, against a bound that was fixed before: choosing it by what was drained
 * would prefer slow times.
 */
import { type Blame, type Sample, STOPPED, whose } from "./backlog.ts";
import { type Drift, type ServiceEstimate, ServiceRate } from "./service.ts";

export interface StretchOptions {
  rate: number;
  messageSize: number;
  /** 1 - confidence. */
  error: number;
  /** The interval is narrow enough when its half is at most this share of the mean. */
  halfWidth: number;
  /** The first look at the interval, in seconds of the stretch; the next ones at twice the time each. */
  firstLook: number;
  /** The end of the time, where the last look is. */
  lastLook: number;
  /** The largest number of bytes read between two samples of earlier trials. */
  largestRead: number;
  /** The longest pause of the reader in earlier trials; seconds. */
  pause: number;
  /** The highest rate at which it has kept up; bytes a second. */
  kept: number;
  /** Called at each look. */
  onLook?: () => void;
}

export interface StretchResult {
  estimate: ServiceEstimate | undefined;
  /** The reader caught up: it is faster than the rate. */
  caughtUp: boolean;
  /** It drains less than half of what it had kept up with. */
  collapsed: boolean;
  /** It has stopped reading: once it is behind, it does not come back. */
  stopped: boolean;
  /** Who kept the sender from making a backlog at the reader, where nobody could say its speed. */
  blame: Blame;
}

/** Time in which the backlog builds up; seconds. */
const SETTLE = 0.3;
/** After this time, and so many pauses, it is given up as soon as the reader has no backlog. */
const GIVE_UP = { seconds: 2, pauses: 12 };
/**
 * Where most of the backlog was not the reader's for so long, what it drains is not its service rate. Linux's
 * BBR sends hardly anything for 0.2 s each 10 s (PROBE_RTT, draft-cardwell-iccrg-bbr-congestion-control-00).
 */
const OTHERS = { seconds: 0.3, pauses: 1.5 };
/**
 * And in so many of a stretch's samples most of the backlog must be the reader's: of one that is behind it
 * is in all of them, however it reads.
 */
const READERS = 0.75;
/** It has collapsed if it drains so little of what it had kept up with; after so long. */
const COLLAPSE = { share: 0.5, seconds: 2, pauses: 8 };
/** The last look is worth one of its own if it comes so much later than the one before. */
const WORTH_A_LOOK = 1.25;
/** A last look before its time needs this share of the first look's time. */
const ENOUGH = 0.5;

/** Takes one sample after the other, until the interval is narrow enough or the time is over. */
export class Stretch {
  readonly #options: StretchOptions;
  /** With a smaller backlog, it may take all of it before the next look. */
  readonly #need: number;
  #rate = new ServiceRate();
  #looks: number[] = [];
  #look = 0;
  /** Samples of the stretch, and those in which most of the backlog was the reader's. */
  #samples = 0;
  #readers = 0;
  /** When most of the backlog last waited for the reader; seconds. */
  #lastReaders = -1;
  #began: number | undefined;
  #drained = 0;
  #lastRead = 0;
  #first: Sample | undefined;
  #last: Sample | undefined;
  /** The change of the rate at the last look. */
  #trend = 0;
  #over = false;
  result: StretchResult = {
    ...{ estimate: undefined, caughtUp: false, collapsed: false, stopped: false },
    blame: "reader",
  };
  /** The change of the rate, seen at two looks, or at the only one. */
  drift: Drift | undefined;

  constructor(options: StretchOptions) {
    this.#options = options;
    this.#need = Math.max(1.5 * options.largestRead, 0.02 * options.rate, 2 * options.messageSize);
    const { firstLook, lastLook } = options;
    for (let at = firstLook; at < lastLook * 1.01; at *= 2) this.#looks.push(at);
    if (lastLook > WORTH_A_LOOK * this.#looks.at(-1)!) this.#looks.push(lastLook);
  }

  /** Whether the stretch is over. */
  add(sample: Sample): boolean {
    if (this.#over) return true;
    const { pause } = this.#options;
    // The object may be the same one each time.
    this.#first ??= { ...sample };
    this.#last = sample;
    const { time } = sample;
    if (sample.drained > this.#drained) {
      this.#drained = sample.drained;
      this.#lastRead = time;
    } else if (
      sample.closed && time - this.#lastRead > Math.max(STOPPED.seconds, STOPPED.pauses * pause)
    ) {
      this.result.stopped = true;
      return this.#over = true;
    }
    const isReaders = whose(sample) === "reader";
    if (isReaders) this.#lastReaders = time;
    const others = time - this.#lastReaders > Math.max(OTHERS.seconds, OTHERS.pauses * pause);
    if (sample.backlog < this.#need || others) {
      if (this.#began !== undefined) {
        // It took all that there was: what follows is another stretch.
        this.#began = undefined;
        this.#rate = new ServiceRate();
        this.#look = 0;
        this.#trend = 0;
        this.#samples = this.#readers = 0;
      }
      if (time > Math.max(GIVE_UP.seconds, SETTLE + GIVE_UP.pauses * pause)) this.#giveUp();
      return this.#over;
    }
    if (time < SETTLE) return false;
    if (this.#collapses(sample)) {
      this.result.collapsed = true;
      return this.#over = true;
    }
    this.#began ??= time;
    this.#rate.add(time, sample.drained);
    this.#samples++;
    if (isReaders) this.#readers++;
    if (time - this.#began >= this.#looks[this.#look]!) this.#lookAtRate();
    return this.#over;
  }

  /** One that slows down only after the first look is no such reader: it becomes slower the longer it runs. */
  #collapses({ time, drained }: Sample): boolean {
    const { kept, pause } = this.#options;
    const { share, seconds, pauses } = COLLAPSE;
    if (this.#look > 0 || time <= Math.max(seconds, pauses * pause)) return false;
    return drained < share * kept * time;
  }

  get service(): ServiceRate {
    return this.#rate;
  }

  /** Drained since the trial began, bytes a second. */
  get drained(): number {
    return this.#last === undefined ? 0 : this.#last.drained / Math.max(1e-9, this.#last.time);
  }

  /** There is no more time: the last look, if enough was seen for one. */
  finish(): void {
    const { firstLook } = this.#options;
    if (this.#over || this.#last === undefined) return;
    if (this.#began === undefined) this.#giveUp();
    else if (this.#last.time - this.#began >= ENOUGH * firstLook) this.#lookAtRate();
    this.#over = true;
  }

  #lookAtRate(): void {
    const { error, halfWidth, onLook } = this.#options;
    if (this.#readers < READERS * this.#samples) return this.#giveUp();
    const estimate = this.#rate.estimate(error * this.#errorShare());
    this.result.estimate = estimate;
    onLook?.();
    const before = this.#trend;
    this.#trend = this.#rate.trend();
    const changes = Math.abs(this.#trend) * estimate.seconds > 4 * halfWidth * estimate.mean;
    // One look is all where the time is short.
    if (changes && (before * this.#trend > 0 || this.#looks.length === 1)) {
      this.drift = this.#rate.drift();
      this.#over = true;
      return;
    }
    this.#look++;
    // What looks like a change of the rate is looked at again.
    this.#over = this.#look === this.#looks.length ||
      (!changes && estimate.halfWidth <= halfWidth * estimate.mean);
  }

  /**
   * Half of the error is the first look's: most readers need no other. The later ones share the rest by
   * their times, so that all of them together keep the error (Bonferroni; Lan and DeMets).
   */
  #errorShare(): number {
    const [, ...later] = this.#looks;
    if (later.length === 0) return 1;
    if (this.#look === 0) return 0.5;
    return 0.5 * this.#looks[this.#look]! / later.reduce((sum, at) => sum + at, 0);
  }

  #giveUp(): void {
    this.#over = true;
    const first = this.#first!;
    const last = this.#last!;
    const grown = last.backlog - first.backlog;
    const { rate } = this.#options;
    const growing = grown > 0.01 * rate * last.time + this.#need;
    const late = last.late - first.late;
    this.result.caughtUp = !growing;
    this.result.blame = !growing ? "reader" : late > grown / 2 ? "sender" : "path";
  }
}
