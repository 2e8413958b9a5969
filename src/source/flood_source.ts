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
  /** A stream of messages, or messages numbered from 0. */
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
    const stream = "numbered" in message ? message : message.forConnection?.() ?? message;
    const numbered = "numbered" in stream;
    const offsetOf = (index: number) => numbered ? index * stream.size : stream.offsetOf(index);
    const first = numbered ? Math.ceil(from / stream.size) : stream.begunBefore(from);
    const startMs = performance.now();
    const endMs = startMs + durationMs;
    const schedule = new Schedule(rate, startMs, endMs);
    const unlimited = rate === Infinity;
    // Computed without the schedule, whose rounded start and end can make it one message more or less.
    const all = unlimited ? Infinity : Math.floor(durationMs * rate / 1000);
    const piece = numbered ? this.#numbered(stream, first, startMs) : pieces(stream, first);
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
        const pushing = sink.push(bytes, count, offsetOf(first + pushed));
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

  /** Makes numbered messages; `startMs`: when the first one is due. */
  #numbered({ size }: NumberedMessage, first: number, startMs: number): Pieces {
    const { rate } = this.#options;
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

/** Returns `count` messages, of which `before` precede in this run; valid until the next call. */
type Pieces = (before: number, count: number) => Uint8Array;

/** Of a stream whose first message to send is number `first`. */
function pieces(message: Message, first: number): Pieces {
  let buffer = new Uint8Array(0);
  return (before, count) => {
    const from = message.offsetOf(first + before);
    const length = message.offsetOf(first + before + count) - from;
    const bytes = message.slice(from, length);
    if (bytes.length === length) return bytes;
    // Longer than one slice, or the end of a recording is in it.
    if (buffer.length < length) buffer = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      const part = filled === 0 ? bytes : message.slice(from + filled, length - filled);
      buffer.set(part, filled);
      filled += part.length;
    }
    return buffer.subarray(0, length);
  };
}
