/** Framers for messages with their length in front. */
import { formatSize } from "../text/units.ts";
import { emptyResult, type Framed, FrameError, type Framer, setResult } from "./framer.ts";

/** Size of the length in front of a message: bytes. */
const HEADER = 4;

/** Length of the message at `at`, including its header; Infinity if there is no complete header. */
type Announced = (bytes: Uint8Array, at: number) => number;

/** `Framer.lengthOf`. */
function wholeLength(announced: Announced, bytes: Uint8Array): number | undefined {
  const length = announced(bytes, 0);
  return length <= bytes.length ? length : undefined;
}

/** `Framer.floor`. */
function floorOf(announced: Announced, bytes: Uint8Array, offset: number): number {
  let at = 0;
  for (let end; (end = at + announced(bytes, at)) <= offset;) at = end;
  return at;
}

/** 4 bytes, big-endian. */
export class LengthFramer implements Framer {
  readonly #longest: number;
  readonly #framed = emptyResult();
  /** Bytes of the header that have arrived, and their value. */
  #headerBytes = 0;
  #length = 0;
  /** Bytes of the body that have not arrived yet; valid once the header is complete. */
  #missing = 0;
  /** After an error: bytes of the message that is too long, from `end` on. */
  #toSkip = 0;

  constructor(longest: number) {
    this.#longest = longest;
  }

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const framed = setResult(this.#framed, 0, 0, 0);
    if (framed.error !== undefined) return framed;
    let at = 0;
    while (framed.messages < most) {
      while (this.#headerBytes < HEADER && at < chunk.length) {
        this.#length = (this.#length << 8 | chunk[at++]!) >>> 0;
        if (++this.#headerBytes === HEADER) this.#missing = this.#length;
      }
      if (this.#headerBytes < HEADER) break;
      if (this.#missing > this.#longest) {
        this.#toSkip = at - framed.end + this.#missing;
        framed.error = new FrameError(
          `a message announces ${this.#missing} bytes, at most ${formatSize(this.#longest)} are ` +
            "allowed: does each message begin with its length as 4 bytes, big-endian?",
        );
        break;
      }
      if (this.#missing > chunk.length - at) {
        this.#missing -= chunk.length - at;
        break;
      }
      at += this.#missing;
      this.#headerBytes = this.#length = this.#missing = 0;
      framed.end = at;
      if (framed.messages++ === 0) framed.first = at;
    }
    return framed;
  }

  reset(): void {
    this.#headerBytes =
      this.#length =
      this.#missing =
      this.#toSkip =
        0;
    this.#framed.error = undefined;
  }

  /** As many bytes as it has announced, whether or not that is its length. */
  skip(bytes: Uint8Array): number {
    const skipped = Math.min(this.#toSkip, bytes.length);
    this.#toSkip -= skipped;
    if (this.#toSkip === 0) this.reset();
    return skipped;
  }

  get skipping(): boolean {
    return this.#framed.error !== undefined;
  }

  lengthOf(bytes: Uint8Array): number | undefined {
    return wholeLength(announcedLength, bytes);
  }

  floor(bytes: Uint8Array, offset: number): number {
    return floorOf(announcedLength, bytes, offset);
  }
}

function announcedLength(bytes: Uint8Array, at: number): number {
  if (bytes.length - at < HEADER) return Infinity;
  const high = (bytes[at]! << 8 | bytes[at + 1]!) * 65_536;
  return HEADER + high + (bytes[at + 2]! << 8 | bytes[at + 3]!);
}

const ZERO = 48;
const NINE = 57;
const SPACE = 32;
const LF = 10;
/** More digits than this are no length. */
const MOST_DIGITS = 10;

/** Decimal digits and a space (octet counting, RFC 6587, 3.4.1). */
export class OctetFramer implements Framer {
  readonly #longest: number;
  readonly #framed = emptyResult();
  /** Digits of the header that have arrived, and their value. */
  #digits = 0;
  #length = 0;
  /** Bytes of the body that have not arrived yet; undefined while the header is incomplete. */
  #missing: number | undefined;
  /** After an error: bytes of the message that is too long, from `end` on; undefined: up to a line feed. */
  #toSkip: number | undefined = 0;

  constructor(longest: number) {
    this.#longest = longest;
  }

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const framed = setResult(this.#framed, 0, 0, 0);
    if (framed.error !== undefined) return framed;
    let at = 0;
    while (framed.messages < most) {
      while (this.#missing === undefined && at < chunk.length) {
        const byte = chunk[at++]!;
        if (byte >= ZERO && byte <= NINE && this.#digits < MOST_DIGITS) {
          this.#length = 10 * this.#length + byte - ZERO;
          this.#digits++;
        } else if (byte === SPACE && this.#digits > 0) this.#missing = this.#length;
        else return this.#fail(undefined, "a message does not begin with its length and a space");
      }
      if (this.#missing === undefined) break;
      if (this.#missing > this.#longest) {
        return this.#fail(
          at - framed.end + this.#missing,
          `a message announces ${this.#missing} bytes, at most ${
            formatSize(this.#longest)
          } are allowed`,
        );
      }
      if (this.#missing > chunk.length - at) {
        this.#missing -= chunk.length - at;
        break;
      }
      at += this.#missing;
      this.#begin();
      framed.end = at;
      if (framed.messages++ === 0) framed.first = at;
    }
    return framed;
  }

  #fail(toSkip: number | undefined, why: string): Framed {
    this.#toSkip = toSkip;
    this.#framed.error = new FrameError(`${why}: does each message begin like "12 "?`);
    return this.#framed;
  }

  #begin(): void {
    this.#digits = this.#length = 0;
    this.#missing = undefined;
  }

  reset(): void {
    this.#begin();
    this.#toSkip = 0;
    this.#framed.error = undefined;
  }

  /** As many bytes as it has announced; without a length, up to the next line feed. */
  skip(bytes: Uint8Array): number {
    let skipped: number;
    if (this.#toSkip === undefined) {
      const end = bytes.indexOf(LF) + 1;
      if (end === 0) return bytes.length;
      skipped = end;
    } else {
      skipped = Math.min(this.#toSkip, bytes.length);
      this.#toSkip -= skipped;
      if (this.#toSkip > 0) return skipped;
    }
    this.reset();
    return skipped;
  }

  get skipping(): boolean {
    return this.#framed.error !== undefined;
  }

  lengthOf(bytes: Uint8Array): number | undefined {
    return wholeLength(announcedOctets, bytes);
  }

  floor(bytes: Uint8Array, offset: number): number {
    return floorOf(announcedOctets, bytes, offset);
  }
}

/** Infinity also for bytes that are no header. */
function announcedOctets(bytes: Uint8Array, at: number): number {
  let length = 0;
  for (let i = at; i < Math.min(bytes.length, at + MOST_DIGITS + 1); i++) {
    const byte = bytes[i]!;
    if (byte === SPACE && i > at) return i + 1 - at + length;
    if (byte < ZERO || byte > NINE) break;
    length = 10 * length + byte - ZERO;
  }
  return Infinity;
}
