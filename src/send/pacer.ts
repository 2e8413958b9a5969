/** Open-loop pacing: what is due depends on the clock alone, not on what has been sent. */
import { setImmediate } from "node:timers";

/**
 * A schedule in whole messages. Messages that could not be sent in time stay due, so a slow reader
 * cannot slow the schedule down (coordinated omission, see wrk2).
 */
export class Schedule {
  /** Messages per second; Infinity: as fast as the kernel takes them. */
  readonly rate: number;
  /** In ms of `performance.now()`, like all times here. */
  readonly startMs: number;
  /** No message becomes due after this time. */
  readonly endMs: number;

  constructor(rate: number, startMs: number, endMs: number = Infinity) {
    this.rate = rate;
    this.startMs = startMs;
    this.endMs = endMs;
  }

  /** Messages due by `nowMs`: Infinity at an unlimited rate. */
  due(nowMs: number): number {
    return Math.floor((Math.min(nowMs, this.endMs) - this.startMs) * this.rate / 1000);
  }
}

/**
 * One timer for all floods of a process. It calls each listener about every millisecond with the time
 * in ms of `performance.now()`, which is read once per tick.
 */
export class Ticker {
  readonly #listeners = new Set<(nowMs: number) => void>();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** Calls `listener` at every tick, until the returned function is called. */
  add(listener: (nowMs: number) => void): () => void {
    this.#listeners.add(listener);
    this.#timer ??= setInterval(() => {
      const now = performance.now();
      for (const each of this.#listeners) each(now);
    }, 1);
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
  }
}

/** Bytes that may be read or written before `nextTurn` is due: some 2 ms on loopback. */
export const TURN_BYTES: number = 8 << 20;
/** The same as a number of reads, for small reads. */
export const TURN_READS = 4096;

/** Lets the event loop handle timers, signals and other connections. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
