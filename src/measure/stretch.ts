/**
 * A stretch of time in which a reader always has something to read: what it drains is its service rate.
 *
 * It is chosen by the backlog alone, against a bound that was fixed before: choosing it by what was drained
 * would prefer slow times.
 */
import { type Blame, type Sample, whose } from "./backlog.ts";
import { type ServiceEstimate, ServiceRate } from "./service.ts";

export interface StretchOptions {
  rate: number;
  messageSize: number;
  /** 1 - confidence. */
  error: number;
  /** The interval is narrow enough when its half is at most this share of the mean. */
  halfWidth: number;
  /** The first look at the interval, in seconds of the stretch; the next ones at twice the time each. */
  firstLook: number;
  /** The last look. */
  lastLook: number;
  /** The largest number of bytes read between two samples of earlier trials. */
  largestRead: number;
  /** The longest pause of the reader in earlier trials; seconds. */
  pause: number;
}

export interface StretchResult {
  estimate: ServiceEstimate | undefined;
  /** The reader caught up again and again: it is faster than the rate. */
  caughtUp: boolean;
  /** Who kept the sender from making a backlog at the reader, where nobody could say its speed. */
  blame: Blame;
}

/** Time in which the backlog builds up; seconds. */
const SETTLE = 0.3;

/** Takes one sample after the other, until the interval is narrow enough or the time is over. */
export class Stretch {
  readonly #options: StretchOptions;
  /** With a smaller backlog, it may take all of it before the next look. */
  readonly #need: number;
  #rate = new ServiceRate();
  #looks: number[] = [];
  #look = 0;
  /** When most of the backlog last waited for the reader; seconds. */
  #lastReaders = -1;
  #began: number | undefined;
  #first: Sample | undefined;
  #last: Sample | undefined;
  /** The change of the rate at the last look. */
  #trend = 0;
  result: StretchResult = { estimate: undefined, caughtUp: false, blame: "reader" };
  /** The change of the rate, seen at two looks; bytes a second in each second. */
  drift = 0;

  constructor(options: StretchOptions) {
    this.#options = options;
    this.#need = Math.max(1.5 * options.largestRead, 0.02 * options.rate, 2 * options.messageSize);
    for (let at = options.firstLook; at < options.lastLook * 1.01; at *= 2) this.#looks.push(at);
  }

  /** From the first sample to the last one. */
  get seconds(): number {
    return (this.#last?.time ?? 0) - (this.#first?.time ?? 0);
  }

  /** Whether the stretch is over. */
  add(sample: Sample): boolean {
    const { pause, error, halfWidth } = this.#options;
    this.#first ??= sample;
    this.#last = sample;
    const { time } = sample;
    if (whose(sample) === "reader") this.#lastReaders = time;
    if (sample.backlog < this.#need || time - this.#lastReaders > Math.max(0.05, 1.5 * pause)) {
      if (this.#began !== undefined) {
        // It took all that there was: what follows is another stretch.
        this.#began = undefined;
        this.#rate = new ServiceRate();
        this.#look = 0;
      }
      if (time > Math.max(2, SETTLE + 20 * pause)) return this.#giveUp();
      return false;
    }
    if (time < SETTLE) return false;
    this.#began ??= time;
    this.#rate.add(time, sample.drained);
    if (time - this.#began < this.#looks[this.#look]!) return false;
    const total = this.#looks.reduce((sum, at) => sum + at, 0);
    const estimate = this.#rate.estimate(error * this.#looks[this.#look]! / total);
    this.result.estimate = estimate;
    const before = this.#trend;
    this.#trend = this.#rate.trend();
    const changes = Math.abs(this.#trend) * estimate.seconds > 4 * halfWidth * estimate.mean;
    if (changes && before * this.#trend > 0) {
      this.drift = this.#trend;
      return true;
    }
    this.#look++;
    if (this.#look === this.#looks.length) return true;
    // What looks like a change of the rate is looked at again.
    return !changes && estimate.halfWidth <= halfWidth * estimate.mean;
  }

  #giveUp(): boolean {
    const first = this.#first!;
    const last = this.#last!;
    const grown = last.backlog - first.backlog;
    const { rate } = this.#options;
    const growing = grown > 0.01 * rate * last.time + this.#need;
    const late = last.late - first.late;
    this.result.caughtUp = !growing;
    this.result.blame = !growing ? "reader" : late > grown / 2 ? "sender" : "path";
    return true;
  }
}
