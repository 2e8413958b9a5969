/**
 * Numbered messages. With them a reader can prove that no message is missing, duplicated, out of order
 * or damaged.
 *
 * Bytes 0-7 are the message's number, counted from 0. Bytes 8-15 are the time at which it was planned
 * to be sent, in ns since 1970. Filler follows. The last 4 bytes are the CRC-32 of all bytes before
 * them. All integers are unsigned and big-endian.
 */
import { crc32, CrcHead } from "./crc32.ts";
import { NumberSet } from "./number_set.ts";

/** The smallest numbered message: number, time and CRC. Bytes. */
export const LEAST_NUMBERED_SIZE = 20;
/** The default size of a numbered message. Bytes. */
export const DEFAULT_NUMBERED_SIZE = 64;

const PLANNED_AT = 8;
const FILLER_AT = 16;
/** For longer messages, building CRC tables takes longer than the tables save. Bytes. */
const MAX_TABLED_SIZE = 65_536;
const CRC_BYTES = 4;
const TWO_32 = 2 ** 32;
/** Numbers from 2^53 on are impossible: doubles would lose them. In units of 2^32. */
const IMPOSSIBLE_HIGH = 2 ** 21;

/** A run of consecutive messages to write. */
export interface NumberedFill {
  /** The number of the first message. */
  first: number;
  count: number;
  /** Size of each message: bytes, at least 20. */
  size: number;
  /** Planned time of the first message: ms since 1970, with fractions. */
  plannedMs: number;
  /** Time from one planned time to the next: ms; 0 where there is no rate. */
  everyMs: number;
}

/**
 * Writes `count` whole messages to the start of a buffer. Planned times are accurate to 1 µs, because
 * a double of ms since 1970 is accurate to 0.25 µs. Throws a RangeError when they do not fit.
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
  // A time in ns exceeds 2^53, so it is split: the time of the first message's whole ms is
  // `multiples` x 2^20 ns plus a remainder, and becomes `timeHigh` x 2^32 ns plus `rest` ns.
  const wholeMs = Math.floor(plannedMs);
  const firstNs = (plannedMs - wholeMs) * 1e6;
  const everyNs = everyMs * 1e6;
  const multiples = Math.floor(wholeMs / 2 ** 20) * 1e6;
  const rest = (multiples % 4096) * 2 ** 20 + (wholeMs % 2 ** 20) * 1e6;
  const head = size <= MAX_TABLED_SIZE ? crcHeadOf(size) : undefined;
  // All words in the loop are signed 32-bit integers. When JavaScriptCore meets another number there,
  // it discards the compiled loop and runs five times as slowly.
  let numberHigh = Math.floor(first / TWO_32);
  let number = lowWord(first - numberHigh * TWO_32);
  let timeHigh = Math.floor(multiples / 4096);
  /** The ns that have been carried from the low word into `timeHigh`. */
  let carried = 0;
  /** The part of the CRC's register that depends on the two high words only. */
  let register = registerOf(head, numberHigh, timeHigh);
  for (let i = 0, at = 0; i < count; i++, at += size) {
    let ns = rest + Math.floor(firstNs + i * everyNs) - carried;
    if (ns >= TWO_32) {
      const carry = Math.floor(ns / TWO_32);
      timeHigh += carry;
      carried += carry * TWO_32;
      ns -= carry * TWO_32;
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

/**
 * A whole number from 0 to 2^32 - 1 as a signed 32-bit integer. Subtracting first keeps it in the
 * range of 32-bit integers: converting a larger double is slow.
 */
const lowWord = (value: number): number => (value - 2 ** 31 | 0) ^ 1 << 31;

/** The CRC's register after the two high words, without the low words. */
function registerOf(head: CrcHead | undefined, numberHigh: number, timeHigh: number): number {
  if (head === undefined) return 0;
  return head.zero ^ head.word(0, numberHigh) ^ head.word(PLANNED_AT, timeHigh);
}

const crcHeads = new Map<number, CrcHead>();

/** The CRC tables for messages of this size. Their filler is always the same. */
function crcHeadOf(size: number): CrcHead {
  let head = crcHeads.get(size);
  if (head === undefined) {
    const message = new Uint8Array(size);
    fillFiller(message, size, size);
    head = new CrcHead(FILLER_AT, message.subarray(FILLER_AT, size - CRC_BYTES));
    crcHeads.set(size, head);
  }
  return head;
}

/** Fills all messages with printable bytes; the other fields are then written over them. */
function fillFiller(into: Uint8Array, size: number, length: number): void {
  const once = Math.min(size, length);
  for (let i = FILLER_AT; i < once; i++) into[i] = 33 + i % 94;
  for (let filled = once; filled < length; filled *= 2) {
    into.copyWithin(filled, 0, Math.min(filled, length - filled));
  }
}

/** Throws a RangeError when numbered messages cannot have this size. */
export function checkNumberedSize(size: number): void {
  if (Number.isSafeInteger(size) && size >= LEAST_NUMBERED_SIZE) return;
  throw new RangeError(
    `the size of numbered messages must be a whole number of at least ${LEAST_NUMBERED_SIZE}, is ${size}`,
  );
}

/** What a verifier found. All but `messages` are 0 when nothing went wrong. */
export interface NumberedTotals {
  /** Complete messages received, including duplicates and damaged ones. */
  readonly messages: number;
  /** Messages whose numbers were skipped and that have not arrived since. */
  readonly missing: number;
  /** Messages whose number had already arrived. */
  readonly duplicates: number;
  /** Messages that arrived after a later one (RFC 4737, 3). They do not count as missing. */
  readonly outOfOrder: number;
  /** Messages with a wrong CRC or an impossible number. */
  readonly damaged: number;
}

/**
 * Checks a stream of numbered messages. Chunks may end anywhere.
 *
 * Each fault counts once. A number above the expected one means that those between are missing. A
 * number below it was missing and is now out of order, or else it is a duplicate. A damaged message
 * counts as the expected one, so that nothing is missing because of it. Messages are found by their
 * size alone: after a lost byte, all that follow are damaged.
 */
export class NumberedVerifier implements NumberedTotals {
  messages = 0;
  missing = 0;
  duplicates = 0;
  outOfOrder = 0;
  damaged = 0;
  readonly #size: number;
  /** The expected number. */
  #next: number;
  /** The incomplete message at the end of the last chunk. */
  readonly #partial: Uint8Array;
  readonly #partialView: DataView;
  #partialBytes = 0;
  /** Numbers that are missing. */
  readonly #missing = new NumberSet();
  /** Numbers for which a damaged message was counted. If one arrives after all, it is no fault. */
  readonly #assumed = new NumberSet();

  /** `next`: the first expected number. Throws a RangeError when the size is invalid. */
  constructor(size: number, next: number = 0) {
    checkNumberedSize(size);
    this.#size = size;
    this.#next = next;
    this.#partial = new Uint8Array(size);
    this.#partialView = new DataView(this.#partial.buffer);
  }

  /** Checks the next bytes of the stream. The chunk is not kept. */
  push(chunk: Uint8Array): void {
    const size = this.#size;
    let at = 0;
    if (this.#partialBytes > 0) {
      at = Math.min(size - this.#partialBytes, chunk.length);
      this.#partial.set(chunk.subarray(0, at), this.#partialBytes);
      this.#partialBytes += at;
      if (this.#partialBytes < size) return;
      this.#check(this.#partial, this.#partialView, 0);
    }
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.length);
    for (; at + size <= chunk.length; at += size) this.#check(chunk, view, at);
    if (at < chunk.length) this.#partial.set(chunk.subarray(at));
    this.#partialBytes = chunk.length - at;
  }

  /** Bytes of an incomplete message at the end of the stream; 0 if it ended between two messages. */
  end(): number {
    return this.#partialBytes;
  }

  #check(bytes: Uint8Array, view: DataView, at: number): void {
    this.messages++;
    const end = at + this.#size - CRC_BYTES;
    const high = view.getUint32(at);
    if (view.getUint32(end) !== crc32(bytes, at, end) || high >= IMPOSSIBLE_HIGH) {
      this.damaged++;
      this.#assumed.add(this.#next, this.#next + 1);
      this.#next++;
      return;
    }
    const number = high * TWO_32 + view.getUint32(at + 4);
    if (number === this.#next) this.#next++;
    else this.#unexpected(number);
  }

  /** Counts a message that is not the expected one. */
  #unexpected(number: number): void {
    if (number > this.#next) {
      this.missing += number - this.#next;
      this.#missing.add(this.#next, number);
      this.#next = number + 1;
    } else if (this.#missing.remove(number)) {
      this.missing--;
      this.outOfOrder++;
    } else if (!this.#assumed.remove(number)) {
      this.duplicates++;
    }
  }
}
