/** A clock that stands still until a test moves it: of `performance.now()` and `setTimeout`. */

export class MadeClock {
  nowMs = 1000;
  #timers: { atMs: number; run: () => void }[] = [];

  /** Number of timers that are set. */
  get timers(): number {
    return this.#timers.length;
  }

  set(run: () => void, ms: number): { atMs: number; run: () => void } {
    const timer = { atMs: this.nowMs + ms, run };
    this.#timers.push(timer);
    return timer;
  }

  clear(timer: unknown): void {
    this.#timers = this.#timers.filter((each) => each !== timer);
  }

  /** Timers that are due then run, in their order. */
  pass(ms: number): void {
    this.nowMs += ms;
    for (const timer of this.#timers.toSorted((a, b) => a.atMs - b.atMs)) {
      if (timer.atMs > this.nowMs) return;
      this.clear(timer);
      timer.run();
    }
  }
}

/** Runs the body while this clock is the process's. */
export async function withClock(body: (clock: MadeClock) => void | Promise<void>): Promise<void> {
  const clock = new MadeClock();
  const now = performance.now;
  const { setTimeout, clearTimeout } = globalThis;
  performance.now = () => clock.nowMs;
  globalThis.setTimeout = clock.set.bind(clock) as unknown as typeof setTimeout;
  globalThis.clearTimeout = clock.clear.bind(clock);
  try {
    await body(clock);
  } finally {
    performance.now = now;
    Object.assign(globalThis, { setTimeout, clearTimeout });
  }
}

/** All that can happen without a timer. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await null;
}
