/**
 * Numbered messages: with them a reader can prove that it lost nothing, got nothing twice, and got
 * all of it in order.
 *
 * Bytes 0-7 are the message's number from 0, bytes 8-15 the time at which it was planned to be sent,
 * in ns since 1970; then filler; the last 4 bytes are the CRC-32 of all before them. All of them
 * unsigned and big-endian.
 */
import { crc32, CrcHead } from "./crc32.ts";

/** Number, time and CRC. Bytes. */
export const LEAST_NUMBERED_SIZE = 20;
/** Bytes of a numbered message unless told otherwise. */
export const DEFAULT_NUMBERED_SIZE = 64;

const PLANNED_AT = 8;
const FILLER_AT = 16;
/** To have tables of longer messages takes longer than what they save. Bytes. */
const LONGEST_TABLED = 65_536;
const CRC_BYTES = 4;
const TWO_32 = 2 ** 32;
/** A number from here on is none: doubles would lose it. In units of 2^32. */
const IMPOSSIBLE_HIGH = 2 ** 21;

/** Which messages are written, one after the other. */
export interface NumberedFill {
  /** The number of the first one. */
  first: number;
  count: number;
  /** Bytes of each; at least 20. */
  size: number;
  /** When the first one was planned: ms since 1970, with its fraction. */
  plannedMs: number;
  /** From one plan to the next: ms; 0 where there is no rate. */
  everyMs: number;
}

/**
 * Writes so many whole messages into a buffer, from its start on. Planned times are right to 1 µs: a
 * double of ms since 1970 is so to 0.25 µs. Throws a RangeError when they do not fit.
 */
export function fillNumbered(into: Uint8Array, fill: NumberedFill): void {
  const { first, count, size, plannedMs, everyMs } = fill;
  checkNumberedSize(size);
  const length = count * size;
  if (length > into.length) {
    throw new RangeError(`${count} messages of ${size} bytes do not fit into ${into.length} bytes`);
  }
  fillFiller(into, size, length);
  const view = new DataView(into.buffer, into.byteOffset, length);
  // In ns it is past 2^53: the whole ms as two words, and what is added to them apart.
  const wholeMs = Math.floor(plannedMs);
  const firstNs = (plannedMs - wholeMs) * 1e6;
  const everyNs = everyMs * 1e6;
  const millions = Math.floor(wholeMs / 2 ** 20) * 1e6;
  const rest = (millions % 4096) * 2 ** 20 + (wholeMs % 2 ** 20) * 1e6;
  const head = size <= LONGEST_TABLED ? headOf(size) : undefined;
  // All words are 32-bit integers, with a sign, whatever they are: where such a loop meets a number that
  // is none, JavaScriptCore gives up what it has compiled of it, and goes on five times as slowly.
  let numberHigh = Math.floor(first / TWO_32);
  let number = lowWord(first - numberHigh * TWO_32);
  let timeHigh = Math.floor(millions / 4096);
  /** What `timeHigh` has of `rest` and what is added to it. */
  let counted = 0;
  /** Of the CRC's register: what the two high words leave there. */
  let register = registerOf(head, numberHigh, timeHigh);
  for (let i = 0, at = 0; i < count; i++, at += size) {
    let ns = rest + Math.floor(firstNs + i * everyNs) - counted;
    if (ns >= TWO_32) {
      const more = Math.floor(ns / TWO_32);
      timeHigh += more;
      counted += more * TWO_32;
      ns -= more * TWO_32;
      register = registerOf(head, numberHigh, timeHigh);
    }
    const time = lowWord(ns);
    view.setInt32(at, numberHigh);
    view.setInt32(at + 4, number);
    view.setInt32(at + PLANNED_AT, timeHigh);
    view.setInt32(at + PLANNED_AT + 4, time);
    const end = at + size - CRC_BYTES;
    const crc = head === undefined
      ? crc32(into, at, end)
      : ~(register ^ head.word(4, number) ^ head.word(PLANNED_AT + 4, time));
    view.setInt32(end, crc);
    number = number + 1 | 0;
    if (number === 0) register = registerOf(head, ++numberHigh, timeHigh);
  }
}

/** The 32 bits of a whole number from 0 to 2^32; a number from 2^31 on takes its time to become some. */
const lowWord = (value: number): number => (value - 2 ** 31 | 0) ^ 1 << 31;

function registerOf(head: CrcHead | undefined, numberHigh: number, timeHigh: number): number {
  if (head === undefined) return 0;
  return head.zero ^ head.word(0, numberHigh) ^ head.word(PLANNED_AT, timeHigh);
}

const heads = new Map<number, CrcHead>();

/** The CRCs of messages of this size, whose filler is always the same. */
function headOf(size: number): CrcHead {
  let head = heads.get(size);
  if (head === undefined) {
    const message = new Uint8Array(size);
    fillFiller(message, size, size);
    head = new CrcHead(FILLER_AT, message.subarray(FILLER_AT, size - CRC_BYTES));
    heads.set(size, head);
  }
  return head;
}

/** Printable bytes over all the messages: what is not filler is written over them. */
function fillFiller(into: Uint8Array, size: number, length: number): void {
  const once = Math.min(size, length);
  for (let i = FILLER_AT; i < once; i++) into[i] = 33 + i % 94;
  for (let filled = once; filled < length; filled *= 2) {
    into.copyWithin(filled, 0, Math.min(filled, length - filled));
  }
}

/** Throws a RangeError when no numbered message can have so many bytes. */
export function checkNumberedSize(size: number): void {
  if (Number.isSafeInteger(size) && size >= LEAST_NUMBERED_SIZE) return;
  throw new RangeError(
    `the size of numbered messages must be a whole number from ${LEAST_NUMBERED_SIZE} on, is ${size}`,
  );
}

/** What a verifier found; all 0 but `messages` where nothing went wrong. */
export interface NumberedTotals {
  /** Whole messages that came, whatever they were worth. */
  readonly messages: number;
  /** Messages that are missing: their numbers were passed over, and have not come since. */
  readonly missing: number;
  /** Messages whose number had come before. */
  readonly duplicates: number;
  /** Messages that came after a later one (RFC 4737, 3), and so are missing no more. */
  readonly outOfOrder: number;
  /** Messages whose CRC is wrong, or whose number is impossible. */
  readonly damaged: number;
}

/**
 * Checks a stream of numbered messages, in chunks that need not end where messages end.
 *
 * One thing that went wrong counts once. A number above the one that is due leaves a gap; one below
 * it fills a gap, and is a reordering, or else a double. A damaged message stands for the one that
 * was due, so that it leaves no gap. Where the next one begins is known by the size alone: after a
 * byte that was lost all the rest is damaged.
 */
export class NumberedVerifier implements NumberedTotals {
  messages = 0;
  missing = 0;
  duplicates = 0;
  outOfOrder = 0;
  damaged = 0;
  readonly #size: number;
  #next: number;
  /** The message that the last chunk left unfinished. */
  readonly #begun: Uint8Array;
  readonly #begunView: DataView;
  #begunBytes = 0;
  /** Numbers that were passed over. */
  readonly #missing = new NumberSet();
  /** Numbers that a damaged message stood for: it may have been another. */
  readonly #supposed = new NumberSet();

  /** `next`: the number that is due first. Throws a RangeError when the size cannot be. */
  constructor(size: number, next: number = 0) {
    checkNumberedSize(size);
    this.#size = size;
    this.#next = next;
    this.#begun = new Uint8Array(size);
    this.#begunView = new DataView(this.#begun.buffer);
  }

  /** The next bytes of the stream; they are looked at, and not kept. */
  push(chunk: Uint8Array): void {
    const size = this.#size;
    let at = 0;
    if (this.#begunBytes > 0) {
      at = Math.min(size - this.#begunBytes, chunk.length);
      this.#begun.set(chunk.subarray(0, at), this.#begunBytes);
      this.#begunBytes += at;
      if (this.#begunBytes < size) return;
      this.#check(this.#begun, this.#begunView, 0);
    }
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    for (; at + size <= chunk.length; at += size) this.#check(chunk, view, at);
    if (at < chunk.length) this.#begun.set(chunk.subarray(at));
    this.#begunBytes = chunk.length - at;
  }

  /** Bytes of a message that was begun and did not come whole; 0: the stream ended between two. */
  end(): number {
    return this.#begunBytes;
  }

  #check(bytes: Uint8Array, view: DataView, at: number): void {
    this.messages++;
    const end = at + this.#size - CRC_BYTES;
    const high = view.getUint32(at);
    if (view.getUint32(end) !== crc32(bytes, at, end) || high >= IMPOSSIBLE_HIGH) {
      this.damaged++;
      this.#supposed.add(this.#next, this.#next + 1);
      this.#next++;
      return;
    }
    const number = high * TWO_32 + view.getUint32(at + 4);
    if (number === this.#next) this.#next++;
    else this.#displaced(number);
  }

  #displaced(number: number): void {
    if (number > this.#next) {
      this.missing += number - this.#next;
      this.#missing.add(this.#next, number);
      this.#next = number + 1;
    } else if (this.#missing.take(number)) {
      this.missing--;
      this.outOfOrder++;
    } else if (!this.#supposed.take(number)) {
      this.duplicates++;
    }
  }
}

/** Ranges that a set of numbers keeps: 16 KiB. */
const MOST_RANGES = 1024;

/**
 * Numbers in a bounded number of ranges, the oldest of which is forgotten for a new one: a message
 * of it that does come counts as a double.
 */
class NumberSet {
  /** In turn; an empty range is one that was taken whole. */
  readonly #from = new Float64Array(MOST_RANGES);
  readonly #to = new Float64Array(MOST_RANGES);
  #added = 0;

  /** The numbers from `from` to before `to`. */
  add(from: number, to: number): void {
    const slot = this.#added++ % MOST_RANGES;
    this.#from[slot] = from;
    this.#to[slot] = to;
  }

  /** Takes a number out; false: it is not in it. */
  take(number: number): boolean {
    // What is late was missed of late.
    for (let i = this.#added - 1; i >= 0 && i >= this.#added - MOST_RANGES; i--) {
      const slot = i % MOST_RANGES;
      const from = this.#from[slot]!;
      const to = this.#to[slot]!;
      if (number < from || number >= to) continue;
      if (number === from) {
        this.#from[slot] = number + 1;
      } else {
        this.#to[slot] = number;
        if (number + 1 < to) this.add(number + 1, to);
      }
      return true;
    }
    return false;
  }
}
