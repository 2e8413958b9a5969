/** Generates messages by a schedule: a flood as a source. */
import { LONGEST_WRITE, type Message } from "../message/message.ts";
import { nextTurn, Schedule, Ticker, TURN_BYTES } from "../send/pacer.ts";
import { checkNumberedSize, fillNumbered } from "../message/numbered.ts";
import type { Sink, Source } from "./source.ts";

/** Numbered messages of `size` bytes: see message/numbered.ts. */
export interface NumberedMessage {
  readonly numbered: true;
  readonly size: number;
}

export interface FloodSourceOptions {
  /** One message that is repeated, or messages numbered from 0. */
  message: Message | NumberedMessage;
  /** Messages a second; Infinity: as fast as the sink accepts them. */
  rate: number;
  /** How long messages become due; those that are due then are still delivered; ms, default no end. */
  durationMs?: number | undefined;
  /** A ticker shared with others; default: its own. */
  ticker?: Ticker | undefined;
}

/** Limit for the bytes of one push, unless a single message is longer. */
const LONGEST_PIECE = LONGEST_WRITE;

/** Its positions are those of bytes, like all. */
export class FloodSource implements Source {
  readonly replayable = true;
  readonly #options: FloodSourceOptions;
  /** Most messages of one push. */
  readonly #most: number;
  #stopped = false;
  #wake: (() => void) | undefined;

  /** Throws a RangeError if the size is too small for numbered messages. */
  constructor(options: FloodSourceOptions) {
    const { message } = options;
    if ("numbered" in message) checkNumberedSize(message.size);
    this.#options = options;
    this.#most = Math.max(1, Math.floor(LONGEST_PIECE / message.size));
  }

  async run(sink: Sink, from: number): Promise<void> {
    const { rate, durationMs = Infinity, ticker = new Ticker(), message } = this.#options;
    const first = Math.ceil(from / message.size);
    const startMs = performance.now();
    const endMs = startMs + durationMs;
    const schedule = new Schedule(rate, startMs, endMs);
    const unlimited = rate === Infinity;
    // Computed without the schedule, whose rounded start and end can make it one message more or less.
    const all = unlimited ? Infinity : Math.floor(durationMs * rate / 1000);
    const piece = this.#pieces(first, startMs);
    let due = unlimited ? Infinity : 0;
    let over = false;
    let pushed = 0;
    const stopTicking = ticker.add((nowMs) => {
      over = nowMs >= endMs;
      if (!unlimited) due = over ? all : Math.min(all, schedule.due(nowMs));
      if (over || due > pushed) this.#wakeUp();
    });
    let turn = 0;
    try {
      while (!this.#stopped && !(over && (unlimited || pushed >= due))) {
        if (pushed >= due) {
          turn = 0;
          await new Promise<void>((resolve) => this.#wake = resolve);
          continue;
        }
        const count = Math.min(due - pushed, this.#most);
        const bytes = piece(pushed, count);
        const pushing = sink.push(bytes, count, (first + pushed) * message.size);
        pushed += count;
        turn += bytes.length;
        if (pushing instanceof Promise) await pushing;
        if (turn >= TURN_BYTES) {
          turn = 0;
          await nextTurn();
        }
      }
    } finally {
      stopTicking();
    }
    if (!this.#stopped) sink.note({ event: "ended", discarded: 0 });
  }

  stop(): void {
    this.#stopped = true;
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** Returns a function that makes `count` messages, of which `before` precede in this run. */
  #pieces(first: number, startMs: number): (before: number, count: number) => Uint8Array {
    const { message, rate } = this.#options;
    const { size } = message;
    if (!("numbered" in message)) {
      if (size <= LONGEST_WRITE) return (_, count) => message.slice(0, count * size);
      const whole = wholeMessage(message);
      return () => whole;
    }
    const buffer = new Uint8Array(this.#most * size);
    const everyMs = 1000 / rate;
    return (before, count) => {
      const bytes = buffer.subarray(0, count * size);
      // At an unlimited rate the planned time of a message is the time at which it is made.
      const sinceMs = rate === Infinity ? performance.now() : startMs + before * everyMs;
      const plannedMs = performance.timeOrigin + sinceMs;
      fillNumbered(bytes, { first: first + before, count, size, plannedMs, everyMs });
      return bytes;
    };
  }
}

/** All bytes of a message that is longer than one `slice`. */
function wholeMessage(message: Message): Uint8Array {
  const whole = new Uint8Array(message.size);
  for (let filled = 0; filled < whole.length;) {
    const part = message.slice(filled, whole.length - filled);
    whole.set(part, filled);
    filled += part.length;
  }
  return whole;
}
