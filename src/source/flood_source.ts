/** The flood as a source: messages of our own making, as many as are due. */
import { LONGEST_WRITE, type Message } from "../message/message.ts";
import { nextTurn, Schedule, Ticker, TURN_BYTES } from "../send/pacer.ts";
import { checkNumberedSize, fillNumbered } from "../message/numbered.ts";
import type { Sink, Source } from "./source.ts";

/** Numbered messages of so many bytes: see message/numbered.ts. */
export interface NumberedMessage {
  readonly numbered: true;
  readonly size: number;
}

export interface FloodSourceOptions {
  /** The same again and again, or numbered from 0. */
  message: Message | NumberedMessage;
  /** Messages a second; Infinity: as fast as they are taken. */
  rate: number;
  /** Generates for so long, then delivers what is still due, and ends; ms, default no end. */
  durationMs?: number | undefined;
  /** Shared with others; default: one of its own. */
  ticker?: Ticker | undefined;
}

/** The longest piece that is pushed, but for a message that is longer. Bytes. */
const LONGEST_PIECE = LONGEST_WRITE;

/** Positions are numbers of messages. */
export class FloodSource implements Source {
  readonly replayable = true;
  readonly #options: FloodSourceOptions;
  /** Messages that the longest piece has. */
  readonly #most: number;
  #stopped = false;
  #wake: (() => void) | undefined;

  /** Throws a RangeError when numbered messages cannot be so short. */
  constructor(options: FloodSourceOptions) {
    const { message } = options;
    if ("numbered" in message) checkNumberedSize(message.size);
    this.#options = options;
    this.#most = Math.max(1, Math.floor(LONGEST_PIECE / message.size));
  }

  async run(sink: Sink, from: number): Promise<void> {
    const { rate, durationMs = Infinity, ticker = new Ticker() } = this.#options;
    const startMs = performance.now();
    const endMs = startMs + durationMs;
    const schedule = new Schedule(rate, startMs, endMs);
    const unlimited = rate === Infinity;
    // Not by the schedule: start and end are rounded, and one message more or less is due there.
    const all = unlimited ? Infinity : Math.floor(durationMs * rate / 1000);
    const piece = this.#pieces(from, startMs);
    let due = unlimited ? Infinity : 0;
    let over = false;
    const stopTicking = ticker.add((nowMs) => {
      over = nowMs >= endMs;
      if (!unlimited) due = over ? all : Math.min(all, schedule.due(nowMs));
      this.#wakeUp();
    });
    let pushed = 0;
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
        const pushing = sink.push(bytes, count, from + pushed);
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

  /** Makes `count` messages from the one on that has `before` others of this run before it. */
  #pieces(from: number, startMs: number): (before: number, count: number) => Uint8Array {
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
      // Without a rate a message is planned for when it is made.
      const sinceMs = rate === Infinity ? performance.now() : startMs + before * everyMs;
      const plannedMs = performance.timeOrigin + sinceMs;
      fillNumbered(bytes, { first: from + before, count, size, plannedMs, everyMs });
      return bytes;
    };
  }
}

/** One message which is longer than what `slice` gives at once. */
function wholeMessage(message: Message): Uint8Array {
  const whole = new Uint8Array(message.size);
  for (let filled = 0; filled < whole.length;) {
    const part = message.slice(filled, whole.length - filled);
    whole.set(part, filled);
    filled += part.length;
  }
  return whole;
}
