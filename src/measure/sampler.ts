/** How often the readers of a trial are sampled, so that sampling itself takes little of a core. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Drained, SAMPLE_EVERY_MS } from "./meter.ts";

/** Sampling all readers may take this share of one core. */
const MOST_OF_A_CORE = 0.2;
/** Rounds that are timed; the shortest counts, because we may be off our core during another. */
const TIMED_ROUNDS = 3;

/** What is sampled: a `Meter`. */
export interface Sampled {
  readDrained(): Drained | undefined;
}

/**
 * Times of the samples of a trial: every 5 ms (50 ms without sock_diag), and with so many readers
 * that this would take more than a fifth of a core, as seldom as it takes a fifth. `now` is the clock,
 * in ms; default `performance.now`.
 */
export class Sampler {
  /** Planned time between two samples of the same reader; ms. */
  readonly everyMs: number;
  readonly #now: () => number;
  #firstMs: number | undefined;
  #lastMs = 0;
  #nextMs = 0;
  #samples = 0;

  /** Reads all meters three times, to see what it costs. */
  constructor(meters: readonly Sampled[], now: () => number = () => performance.now()) {
    this.#now = now;
    let costMs = Infinity;
    for (let round = 0; round < TIMED_ROUNDS; round++) {
      const startMs = now();
      for (const meter of meters) meter.readDrained();
      costMs = Math.min(costMs, now() - startMs);
    }
    this.everyMs = Math.max(SAMPLE_EVERY_MS, Math.ceil(costMs / MOST_OF_A_CORE));
  }

  /**
   * Waits for the time of the next sample. Times are planned from the first call on, so the work in
   * between does not add up; those that have passed already are left out.
   */
  async next(): Promise<void> {
    let nowMs = this.#now();
    if (this.#firstMs === undefined) this.#firstMs = this.#nextMs = nowMs;
    while (nowMs < this.#nextMs) {
      await sleep(Math.ceil(this.#nextMs - nowMs));
      nowMs = this.#now();
    }
    const late = Math.floor((nowMs - this.#nextMs) / this.everyMs);
    this.#nextMs += (late + 1) * this.everyMs;
    this.#lastMs = nowMs;
    this.#samples++;
  }

  /** Mean time between two samples so far, in seconds; the planned one before there are two. */
  get sampleSeconds(): number {
    if (this.#samples < 2) return this.everyMs / 1000;
    return (this.#lastMs - this.#firstMs!) / (this.#samples - 1) / 1000;
  }
}
