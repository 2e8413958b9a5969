/** How long a sender waits for a reader that is behind, before its overflow policy acts. */

export interface Deadlines {
  /**
   * The policy acts once the backlog has been above `bytes` for `ms` without a break, as a soft limit of
   * Redis's client-output-buffer-limit does.
   */
  after?: { bytes: number; ms: number } | undefined;
  /**
   * The policy acts once the kernel has not taken within this time what was due at one moment, as the
   * write_deadline of NATS does; ms.
   */
  writeDeadlineMs?: number | undefined;
}

/** Which of them has passed. */
export type Passed = "after" | "writeDeadline";

/** The deadlines of one reader. */
export class DeadlineWatch {
  readonly #deadlines: Deadlines;
  /** Since when the backlog is above the soft limit. */
  #aboveSinceMs: number | undefined;
  /** What was due then: bytes that the kernel takes until it has taken it. */
  #due: { bytes: number; ms: number } | undefined;

  constructor(deadlines: Deadlines) {
    this.#deadlines = deadlines;
  }

  /** To be called at each tick. `backlog`: bytes that are due; `accepted`: all that the kernel took. */
  check(backlog: number, accepted: number, nowMs: number): Passed | undefined {
    const { after, writeDeadlineMs = Infinity } = this.#deadlines;
    if (after === undefined || backlog <= after.bytes) this.#aboveSinceMs = undefined;
    else if (nowMs - (this.#aboveSinceMs ??= nowMs) >= after.ms) return "after";
    if (this.#due === undefined || accepted >= this.#due.bytes) {
      this.#due = backlog > 0 ? { bytes: accepted + backlog, ms: nowMs } : undefined;
    } else if (nowMs - this.#due.ms >= writeDeadlineMs) return "writeDeadline";
    return undefined;
  }
}

/** Whether there is any. */
export const hasDeadline = ({ after, writeDeadlineMs }: Deadlines): boolean =>
  after !== undefined || writeDeadlineMs !== undefined;
