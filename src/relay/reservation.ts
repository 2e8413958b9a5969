/**
 * Records which offsets may have been sent to readers that acknowledge, before they are sent: after a
 * kill they are not used for other bytes, and a reader cannot claim to have more.
 *
 * It reserves what is sent in half a second, in advance: so little is in doubt after a kill, and the
 * record seldom has to be waited for.
 */
import type { Log } from "../queue/queue.ts";

const LEAST = 65_536;
const MOST = 2 ** 30;
const AHEAD_MS = 500;

export class Reservation {
  readonly #log: Log;
  #reserving: Promise<void> | undefined;
  #beganMs = performance.now();
  #beganAt: number;

  constructor(log: Log) {
    this.#log = log;
    this.#beganAt = log.reserved;
  }

  /** If it returns a promise, bytes up to `end` may be sent only once it has resolved. */
  reserve(end: number): void | Promise<void> {
    const { reserved } = this.#log;
    // While the next record is being written, `beganAt` is already beyond what is reserved.
    if (end <= Math.min(reserved, (reserved + this.#beganAt) / 2)) return;
    if (this.#reserving === undefined) {
      this.#reserving = this.#advance(end);
      // Who has to wait gets the error.
      this.#reserving.catch(() => {});
    }
    if (end > reserved) return this.#wait(end);
  }

  async #wait(end: number): Promise<void> {
    while (end > this.#log.reserved) await (this.#reserving ??= this.#advance(end));
  }

  async #advance(end: number): Promise<void> {
    const nowMs = performance.now();
    const rate = (end - this.#beganAt) / Math.max(1, nowMs - this.#beganMs);
    const ahead = Math.min(MOST, Math.max(LEAST, rate * AHEAD_MS));
    this.#beganMs = nowMs;
    this.#beganAt = end;
    try {
      await this.#log.reserve(Math.max(this.#log.reserved, Math.ceil(end + ahead)));
    } finally {
      this.#reserving = undefined;
    }
  }
}
