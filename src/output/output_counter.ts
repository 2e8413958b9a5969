/** Counts the messages that a reader puts out, and by their numbers those that are lost. */
import { createFramer } from "../message/frame.ts";
import { type Frame, FrameError } from "../message/framer.ts";
import { NumberSet } from "../message/number_set.ts";
import { FIRST_SEQ } from "../message/template.ts";
import { Reassembly } from "../message/reassembly.ts";

export interface CounterOptions {
  /** How the messages of the output are delimited. With `none` its bytes count. */
  frame: Frame;
  /** Only messages that match count; a group in it is the number, where `numbered`. */
  match?: RegExp | undefined;
  /** The messages have numbers: those of `{seq}` in a template. */
  numbered: boolean;
  /** For tests: the clock; ms. */
  now?: () => number;
}

/**
 * A reader with several threads may put out its messages in another order. What has not come so long after those that
 * follow it is lost; ms.
 */
const LATE_MS = 1000;

/** Numbers that have not come, from one that came too early on. */
interface Gap {
  from: number;
  to: number;
  sinceMs: number;
  /** How many of them have not come since. */
  left: number;
}

/** What came out since `begin`. */
export interface OutputTotals {
  /** Messages, without duplicates; with frame `none` bytes. */
  messages: number;
  /** By their numbers; all 0 where there are none. */
  lost: number;
  duplicated: number;
  reordered: number;
}

/** The first number of ten digits that begins with 1: that of `{seq}`. */
const NUMBER = /(?<!\d)(1\d{9})(?!\d)/;

export class OutputCounter implements OutputTotals {
  messages = 0;
  duplicated = 0;
  reordered = 0;
  /** Something came that is not framed as expected: from then on nothing is counted. */
  error: string | undefined;
  readonly #options: CounterOptions;
  #reassembly: Reassembly;
  /** The expected number; undefined: none has come. */
  #next: number | undefined;
  /** Where the number was in the last message. */
  #numberAt = 0;
  #missing = new NumberSet();
  /** Those that may still come, the oldest first; and how many of all others have not come. */
  readonly #gaps: Gap[] = [];
  #lost = 0;
  readonly #now: () => number;

  constructor(options: CounterOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#reassembly = this.#begin();
  }

  /** The output has no messages: its bytes count. */
  get countsBytes(): boolean {
    return this.#options.frame.kind === "none";
  }

  get lost(): number {
    const nowMs = this.#now();
    while (this.#gaps.length > 0) {
      const { left, sinceMs } = this.#gaps[0]!;
      if (left > 0 && nowMs - sinceMs < LATE_MS) break;
      this.#lost += left;
      this.#gaps.shift();
    }
    return this.#lost;
  }

  /** Messages are missing that may still come. */
  get waits(): boolean {
    void this.lost;
    return this.#gaps.some(({ left }) => left > 0);
  }

  /** Counts anew, for another reader. */
  begin(): void {
    this.messages =
      this.duplicated =
      this.reordered =
      this.#lost =
        0;
    this.#next = undefined;
    this.#gaps.length = 0;
    this.error = undefined;
    this.#missing = new NumberSet();
    this.#reassembly = this.#begin();
  }

  #begin(): Reassembly {
    const { frame, match, numbered } = this.#options;
    const framer = createFramer(frame);
    return new Reassembly(createFramer(frame), (bytes, messages) => {
      if (frame.kind === "none") this.messages += bytes.length;
      else if (match === undefined && !numbered) this.messages += messages;
      else {
        for (let at = 0, end: number; at < bytes.length; at = end) {
          end = frame.kind === "line"
            ? bytes.indexOf(LF, at) + 1
            : at + framer.lengthOf(bytes.subarray(at))!;
          this.#count(bytes, at, end);
        }
      }
    });
  }

  /** The next bytes of the output; they are not kept. */
  push(chunk: Uint8Array): void {
    if (this.error !== undefined) return;
    const taking = this.#reassembly.take(chunk);
    // It waits only for what it delivers to, and that never waits.
    if (taking instanceof Promise) {
      taking.catch((error) => {
        if (!(error instanceof FrameError)) throw error;
        this.error = error.message;
      });
    }
  }

  #count(bytes: Uint8Array, from: number, to: number): void {
    const { match, numbered } = this.#options;
    if (!numbered) {
      if (match!.test(latin1(bytes, from, to))) this.messages++;
      return;
    }
    let seq = match === undefined ? numberAt(bytes, from + this.#numberAt, from, to) : undefined;
    if (seq === undefined) {
      const text = latin1(bytes, from, to);
      const found = match?.exec(text);
      if (found === null) return;
      const number = NUMBER.exec(text);
      const digits = found?.[1] ?? number?.[1];
      if (digits === undefined) return;
      this.#numberAt = number?.index ?? 0;
      seq = Number(digits);
    }
    this.#take(seq - FIRST_SEQ);
  }

  #take(number: number): void {
    if (this.#next === undefined) {
      // What came before a reader was ready is neither lost nor still to come.
      this.messages = number;
      this.#next = number;
    }
    if (number === this.#next) this.#next++;
    else if (number > this.#next) {
      const gap = { from: this.#next, to: number };
      this.#gaps.push({ ...gap, sinceMs: this.#now(), left: number - this.#next });
      this.#missing.add(gap.from, gap.to);
      this.#next = number + 1;
    } else if (this.#missing.remove(number)) {
      const gap = this.#gaps.findLast(({ from, to }) => number >= from && number < to);
      if (gap === undefined) this.#lost--;
      else gap.left--;
      this.reordered++;
    } else {
      this.duplicated++;
      return;
    }
    this.messages++;
  }
}

const LF = 10;
const ZERO = 48;
const DIGITS = 10;

/** The number of `{seq}` at this position; undefined: there is none. Much faster than searching the message. */
function numberAt(bytes: Uint8Array, at: number, from: number, to: number): number | undefined {
  if (at + DIGITS > to || bytes[at] !== ZERO + 1) return undefined;
  if (
    (at > from && isDigit(bytes[at - 1]!)) || (at + DIGITS < to && isDigit(bytes[at + DIGITS]!))
  ) {
    return undefined;
  }
  let number = 0;
  for (let i = at; i < at + DIGITS; i++) {
    const byte = bytes[i]!;
    if (!isDigit(byte)) return undefined;
    number = 10 * number + byte - ZERO;
  }
  return number;
}

const isDigit = (byte: number) => byte >= ZERO && byte < ZERO + 10;

const decoder = new TextDecoder("latin1");
const latin1 = (bytes: Uint8Array, from: number, to: number) =>
  decoder.decode(bytes.subarray(from, to));
