/** Open-loop pacing: what is due is a function of the clock alone, whatever was sent so far. */
import { setImmediate } from "node:timers";

/**
 * An absolute schedule in whole messages. Time that was not used is still owed: there is no catching
 * up to forget about (coordinated omission, see wrk2).
 */
export class Schedule {
  /** Messages a second; Infinity: as fast as the kernel takes them. */
  readonly rate: number;
  readonly startMs: number;
  /** Nothing more becomes due from then on. */
  readonly endMs: number;

  /** `startMs` in ms of `performance.now()`. */
  constructor(rate: number, startMs: number, endMs: number = Infinity) {
    this.rate = rate;
    this.startMs = startMs;
    this.endMs = endMs;
  }

  /** Messages due by a time: Infinity at an unlimited rate. */
  due(nowMs: number): number {
    return Math.floor((Math.min(nowMs, this.endMs) - this.startMs) * this.rate / 1000);
  }
}

/**
 * One clock for all floods of a process: calls each listener about every millisecond, with the time
 * in ms of `performance.now()`, asked once a tick.
 */
export class Ticker {
  readonly #listeners = new Set<(nowMs: number) => void>();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** Calls `listener` each tick until the function that it returns is called. */
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

/** So much may be read or written in a row before others have their turn; about 2 ms on loopback. */
export const TURN_BYTES: number = 8 << 20;
/** The same in reads, where they are small. */
export const TURN_READS = 4096;

/** Lets timers, signals and other connections have their turn. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
