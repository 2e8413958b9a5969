/**
 * For a reader on another host, of which only the window is seen: what it has not read shows there late,
 * and not exactly. So it is sent lumps with gaps between them, at a rate that rises until its window
 * shrinks. Then it is sent nothing until the window is open again, and less after that.
 */
import type { Gate, UnreadEvent } from "./unread.ts";
import type { UnreadView } from "./unread_view.ts";

/** The rate at first, and the lowest and highest one; bytes a second. */
const RATE = { first: 8e6, least: 1e6, most: 20e9 };
/** A lump is what comes in this time, and at least so much. */
const LUMP = { seconds: 0.002, least: 16 << 10 };
/** After each lump for which there was always something to send. */
const GROWS = 1.1;
/** Once the window has shrunk. */
const SHRINKS = 0.7;
/** Then the rate does not rise for so long: at first, and where it fails again, at most. Milliseconds. */
const HOLD_MS = { first: 500, most: 30_000 };
/** When its window is open again, it gets so many times the time that it needs for what the window hides. */
const RESTS = { times: 1.5, mostMs: 2000 };
/** A window that has not changed for so long may stay as it is; the time doubles with each repetition. */
const STILL_MS = 1000;
/** A wait that is longer than this is reported. */
const HELD_MS = 300;

export interface PacedOptions {
  /** What is not read, by the window; it hides so many bytes. */
  view: UnreadView & { assumeRead(): void; readonly hides: number };
  wake: () => void;
  onEvent?: (event: UnreadEvent) => void;
  now?: () => number;
}

export class PacedGate implements Gate {
  /** Bytes a second. */
  rate: number = RATE.first;
  readonly #options: PacedOptions;
  readonly #now: () => number;
  /** Of the present lump. */
  #sent = 0;
  #startMs = 0;
  #saturated = true;
  #waitsSinceMs: number | undefined;
  /** The window has shrunk: nothing is sent until it is open again. */
  #behind = false;
  #held = false;
  /** What was unread when it was first seen to be behind, and when that was. */
  #from = { unread: 0, ms: 0 };
  /** Its window is open again, and it rests until then. */
  #restUntilMs: number | undefined;
  /** The rate does not rise before. */
  #holdUntilMs = 0;
  #holdMs = HOLD_MS.first;
  #still = { unread: 0, sinceMs: 0, times: 0 };

  constructor(options: PacedOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  get waitsSinceMs(): number | undefined {
    return this.#waitsSinceMs;
  }

  get #lump(): number {
    return Math.max(LUMP.least, Math.floor(this.rate * LUMP.seconds));
  }

  room(): number {
    if (this.#waitsSinceMs !== undefined) return 0;
    if (this.#sent === 0) this.#startMs = this.#now();
    if (this.#sent < this.#lump) return this.#lump - this.#sent;
    this.#waitsSinceMs = this.#now();
    this.#look(this.#waitsSinceMs);
    return this.#waitsSinceMs === undefined ? this.#lump : 0;
  }

  took(bytes: number): void {
    this.#sent += bytes;
    this.#options.view.took(bytes);
  }

  idle(): void {
    this.#saturated = false;
  }

  tick(nowMs: number): void {
    if (this.#waitsSinceMs === undefined) return;
    this.#look(nowMs);
    if (this.#waitsSinceMs === undefined) this.#options.wake();
  }

  /** Whether the next lump may be sent. */
  #look(nowMs: number): void {
    if (nowMs - this.#startMs < this.#sent / this.rate * 1000) return;
    const unread = this.#options.view.unread();
    if (unread > this.#lump) this.#fallBehind(nowMs, unread);
    if (!this.#behind) {
      if (this.#saturated && nowMs >= this.#holdUntilMs) {
        this.rate = Math.min(RATE.most, this.rate * GROWS);
        if (this.#holdUntilMs > 0 && nowMs - this.#holdUntilMs > this.#holdMs) {
          this.#holdMs = HOLD_MS.first;
        }
      }
      return this.#next();
    }
    if (unread === 0) {
      this.#restUntilMs ??= nowMs + this.#restMs(nowMs);
      if (nowMs >= this.#restUntilMs) this.#recover(nowMs);
      return;
    }
    if (unread !== this.#still.unread) this.#still = { unread, sinceMs: nowMs, times: 0 };
    else if (nowMs - this.#still.sinceMs > STILL_MS * 2 ** this.#still.times) {
      this.#still.sinceMs = nowMs;
      this.#still.times++;
      this.#options.view.assumeRead();
    }
    if (this.#held || nowMs - this.#waitsSinceMs! < HELD_MS) return;
    this.#held = true;
    this.#options.onEvent?.({ event: "held", unread, rate: 0, usual: this.rate });
  }

  #fallBehind(nowMs: number, unread: number): void {
    if (this.#behind) return;
    this.#behind = true;
    this.#from = { unread, ms: nowMs };
    this.#still = { unread, sinceMs: nowMs, times: 0 };
  }

  /** What its window hides may be unread still: it must have read that, too. */
  #restMs(nowMs: number): number {
    const { hides } = this.#options.view;
    const msAByte = (nowMs - this.#from.ms) / Math.max(1, this.#from.unread);
    return Math.min(RESTS.mostMs, RESTS.times * msAByte * hides);
  }

  /** It has read everything. */
  #recover(nowMs: number): void {
    this.#behind = false;
    this.#restUntilMs = undefined;
    if (this.#held) {
      this.#held = false;
      const seconds = (nowMs - this.#waitsSinceMs!) / 1000;
      this.#options.onEvent?.({ event: "released", seconds });
    }
    // A rate that was too high soon after it was raised: it is not raised again for longer.
    if (nowMs - this.#holdUntilMs < this.#holdMs) {
      this.#holdMs = Math.min(HOLD_MS.most, 2 * this.#holdMs);
    }
    this.rate = Math.max(RATE.least, this.rate * SHRINKS);
    this.#holdUntilMs = nowMs + this.#holdMs;
    this.#next();
  }

  #next(): void {
    this.#sent = 0;
    this.#saturated = true;
    this.#waitsSinceMs = undefined;
  }
}
