/** Notices that somebody has sent nothing for a time. */

/**
 * If this process itself has stood still, timers run before what has come meanwhile is read: the time for
 * that.
 */
const GRACE_MS = 10;

export class IdleWatch {
  readonly #idleMs: number;
  readonly #onIdle: () => void;
  /** When the current wait began; ms of `performance.now()`. Undefined: nobody waits. */
  #sinceMs: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `onIdle` is called once a single wait has taken `idleMs`; Infinity: never. */
  constructor(idleMs: number, onIdle: () => void) {
    this.#idleMs = idleMs;
    this.#onIdle = onIdle;
    if (idleMs < Infinity) this.#checkIn(idleMs);
  }

  /** A wait begins. Costs no timer, so it may be called for each read. */
  begin(): void {
    if (this.#timer !== undefined) this.#sinceMs = performance.now();
  }

  /** Something has come. */
  end(): void {
    this.#sinceMs = undefined;
  }

  /** Watches no longer. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#sinceMs = undefined;
  }

  #checkIn(ms: number, last = false): void {
    this.#timer = setTimeout(() => {
      const waitedMs = this.#sinceMs === undefined ? 0 : performance.now() - this.#sinceMs;
      if (waitedMs < this.#idleMs) return this.#checkIn(this.#idleMs - waitedMs);
      if (!last) return this.#checkIn(GRACE_MS, true);
      this.stop();
      this.#onIdle();
    }, ms);
  }
}
