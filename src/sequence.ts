/**
 * Numbered messages: with them a reader can prove that it lost nothing, got nothing twice, and got
 * all of it in order.
 *
 * Bytes 0-7 are the message's number from 0, bytes 8-15 the time at which it was planned to be sent,
 * in ns since 1970; then filler; the last 4 bytes are the CRC-32 of all before them. All of them
 * unsigned and big-endian.
 */
import { crc32, CrcTail, ZLIB_FROM } from "./crc32.ts";

/** Number, time and CRC. Bytes. */
export const LEAST_SEQUENCE_SIZE = 20;
/** Bytes of a numbered message unless told otherwise. */
export const DEFAULT_SEQUENCE_SIZE = 64;

const FILLER_AT = 16;
const CRC_BYTES = 4;
const TWO_32 = 2 ** 32;
/** A number from here on is none: doubles would lose it. In units of 2^32. */
const IMPOSSIBLE_HIGH = 2 ** 21;

/** Which messages are written, one after the other. */
export interface SequenceFill {
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
export function fillSequence(into: Uint8Array, fill: SequenceFill): void {
  const { first, count, size, plannedMs, everyMs } = fill;
  checkSequenceSize(size);
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
  const high = Math.floor(millions / 4096);
  const filler = size < ZLIB_FROM ? fillerOf(size) : undefined;
  for (let i = 0, at = 0; i < count; i++, at += size) {
    const number = first + i;
    view.setUint32(at, Math.floor(number / TWO_32));
    view.setUint32(at + 4, number >>> 0);
    const low = rest + Math.floor(firstNs + i * everyNs);
    view.setUint32(at + 8, high + Math.floor(low / TWO_32));
    view.setUint32(at + 12, low >>> 0);
    const end = at + size - CRC_BYTES;
    const crc = filler === undefined
      ? crc32(into, at, end)
      : filler.append(crc32(into, at, at + FILLER_AT));
    view.setUint32(end, crc);
  }
}

const fillers = new Map<number, CrcTail>();

/** What the filler of messages of this size does to their CRCs. */
function fillerOf(size: number): CrcTail {
  let filler = fillers.get(size);
  if (filler === undefined) {
    const message = new Uint8Array(size);
    fillFiller(message, size, size);
    filler = new CrcTail(message.subarray(FILLER_AT, size - CRC_BYTES));
    fillers.set(size, filler);
  }
  return filler;
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
export function checkSequenceSize(size: number): void {
  if (Number.isSafeInteger(size) && size >= LEAST_SEQUENCE_SIZE) return;
  throw new RangeError(
    `the size of numbered messages must be a whole number from ${LEAST_SEQUENCE_SIZE} on, is ${size}`,
  );
}

/** What a verifier found; all 0 but `messages` where nothing went wrong. */
export interface SequenceTotals {
  /** Whole messages that came, whatever they were worth. */
  readonly messages: number;
  /** Messages that are missing: their numbers were passed over, and have not come since. */
  readonly gaps: number;
  /** Messages whose number had come before. */
  readonly doubles: number;
  /** Messages that came after a later one (RFC 4737, 3), and so are missing no more. */
  readonly reordered: number;
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
export class SequenceVerifier implements SequenceTotals {
  messages = 0;
  gaps = 0;
  doubles = 0;
  reordered = 0;
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
    checkSequenceSize(size);
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
      this.gaps += number - this.#next;
      this.#missing.add(this.#next, number);
      this.#next = number + 1;
    } else if (this.#missing.take(number)) {
      this.gaps--;
      this.reordered++;
    } else if (!this.#supposed.take(number)) {
      this.doubles++;
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
