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

/** So few listeners cost nothing, and are called at every tick. */
const FEW_LISTENERS = 256;
/** With more, calling all of them may take this share of the time. */
const TICK_SHARE = 0.2;

/**
 * One timer for all floods of a process. It calls each listener about every millisecond with the time
 * in ms of `performance.now()`, which is read once per tick.
 *
 * With thousands of listeners a tick comes less often, so that ticks take a fifth of the time at most:
 * Node accepts one connection in each turn of its event loop, and with a long tick in each turn new
 * readers would wait for seconds.
 */
export class Ticker {
  readonly #listeners = new Set<(nowMs: number) => void>();
  #timer: ReturnType<typeof setInterval> | undefined;
  /** What the last tick took, and the time before which the next one must not be. Milliseconds. */
  #lastCostMs = 0;
  #notBeforeMs = 0;

  /** Calls `listener` at every tick, until the returned function is called. */
  add(listener: (nowMs: number) => void): () => void {
    this.#listeners.add(listener);
    this.#timer ??= setInterval(() => this.#tick(), 1);
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
  }

  #tick(): void {
    const now = performance.now();
    if (now < this.#notBeforeMs) return;
    for (const each of this.#listeners) each(now);
    if (this.#listeners.size <= FEW_LISTENERS) return;
    const end = performance.now();
    // The lesser of two, because the process may have been off its core during one of them.
    const costMs = Math.min(end - now, this.#lastCostMs);
    this.#lastCostMs = end - now;
    this.#notBeforeMs = end + costMs * (1 / TICK_SHARE - 1);
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
