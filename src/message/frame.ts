/**
 * Finds where messages begin and end in a stream of bytes: by a fixed size, by line feeds, or by a
 * length in front of each message. The content of messages does not matter here.
 */
import { formatSize, parseBytes, UnitError } from "../text/units.ts";
import {
  emptyResult,
  type Frame,
  type Framed,
  FrameError,
  type Framer,
  setResult,
} from "./framer.ts";
import { LengthFramer, OctetFramer } from "./length_framers.ts";

/** The default maximum size of a message, because an incomplete message is kept in memory. Bytes. */
export const LONGEST_MESSAGE = 64 << 20;

/** Without a size. */
const PLAIN = ["line", "u32", "octet", "none"] as const;

/** A frame from the command line: `fixed:13`, `line`, `u32`, `octet`, `none`. Throws a UnitError. */
export function parseFrame(text: string): Frame {
  const [kind, size] = text.trim().split(/:(.*)/s);
  const plain = PLAIN.find((each) => each === kind);
  if (size === undefined && plain !== undefined) return { kind: plain };
  if (kind === "fixed" && size !== undefined) {
    try {
      return { kind, size: parseBytes(size, { most: LONGEST_MESSAGE }) };
    } catch (error) {
      if (!(error instanceof UnitError)) throw error;
    }
  }
  throw new UnitError(
    `must be fixed:N (N bytes each, from 1 to ${
      formatSize(LONGEST_MESSAGE)
    }), line, u32, octet or none`,
  );
}

/** A frame in the form that `parseFrame` accepts. */
export function formatFrame(frame: Frame): string {
  return frame.kind === "fixed" ? `fixed:${formatSize(frame.size)}` : frame.kind;
}

/** `maxMessage`: the longest accepted line, or body length with `u32` or `octet`; bytes, default 64 MiB. */
export function createFramer(frame: Frame, maxMessage: number = LONGEST_MESSAGE): Framer {
  switch (frame.kind) {
    case "fixed":
      return new FixedFramer(frame.size);
    case "line":
      return new LineFramer(maxMessage);
    case "u32":
      return new LengthFramer(maxMessage);
    case "octet":
      return new OctetFramer(maxMessage);
    case "none":
      return new NoFramer();
  }
}

class FixedFramer implements Framer {
  readonly #size: number;
  readonly #framed = emptyResult();
  /** Bytes of the incomplete message at the end of the last chunk. */
  #partial = 0;

  constructor(size: number) {
    if (!Number.isSafeInteger(size) || size < 1) {
      throw new RangeError(`the size of a message must be a whole number above zero, is ${size}`);
    }
    this.#size = size;
  }

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const total = this.#partial + chunk.length;
    const messages = Math.min(most, Math.floor(total / this.#size));
    if (messages === 0) {
      if (most > 0) this.#partial = total;
      return setResult(this.#framed, 0, 0, 0);
    }
    const first = this.#size - this.#partial;
    const end = first + (messages - 1) * this.#size;
    this.#partial = messages === most ? 0 : chunk.length - end;
    return setResult(this.#framed, first, end, messages);
  }

  reset(): void {
    this.#partial = 0;
  }

  skip(): number {
    return 0;
  }

  get skipping(): boolean {
    return false;
  }

  lengthOf(bytes: Uint8Array): number | undefined {
    return bytes.length >= this.#size ? this.#size : undefined;
  }

  floor(_bytes: Uint8Array, offset: number): number {
    return offset - offset % this.#size;
  }
}

const LF = 10;

class LineFramer implements Framer {
  readonly #longest: number;
  readonly #framed = emptyResult();
  #partial = 0;

  constructor(longest: number) {
    this.#longest = longest;
  }

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const framed = this.#framed;
    if (framed.error !== undefined) return setResult(framed, 0, 0, 0);
    // Lines must be examined one by one only if one of them could be too long, or for `most`.
    if (most !== Infinity || this.#partial + chunk.length > this.#longest) {
      return this.#pushLineByLine(chunk, most);
    }
    const first = chunk.indexOf(LF) + 1;
    if (first === 0) {
      this.#partial += chunk.length;
      return setResult(framed, 0, 0, 0);
    }
    const end = chunk.lastIndexOf(LF) + 1;
    this.#partial = chunk.length - end;
    return setResult(framed, first, end, end === first ? 1 : 1 + countLines(chunk, first, end));
  }

  #pushLineByLine(chunk: Uint8Array, most: number): Framed {
    const framed = setResult(this.#framed, 0, 0, 0);
    while (framed.messages < most) {
      const end = chunk.indexOf(LF, framed.end) + 1;
      const length = this.#partial + (end === 0 ? chunk.length : end) - framed.end;
      if (length > this.#longest) {
        const maximum = formatSize(this.#longest);
        framed.error = new FrameError(
          `a line is longer than ${maximum}, the maximum: does each message end with a line feed?`,
        );
        break;
      }
      this.#partial = end === 0 ? length : 0;
      if (end === 0) break;
      framed.end = end;
      if (framed.messages++ === 0) framed.first = end;
    }
    return framed;
  }

  reset(): void {
    this.#partial = 0;
    this.#framed.error = undefined;
  }

  /** Up to the next line feed. */
  skip(bytes: Uint8Array): number {
    const end = bytes.indexOf(LF) + 1;
    if (end === 0) return bytes.length;
    this.reset();
    return end;
  }

  get skipping(): boolean {
    return this.#framed.error !== undefined;
  }

  lengthOf(bytes: Uint8Array): number | undefined {
    return bytes.indexOf(LF) + 1 || undefined;
  }

  floor(bytes: Uint8Array, offset: number): number {
    return offset === 0 ? 0 : bytes.lastIndexOf(LF, offset - 1) + 1;
  }
}

/** From this length on, counting four bytes at a time is faster. */
const MIN_WORD_BYTES = 128;

/**
 * The number of `\n` from `at` up to `end`. It compares four bytes at a time, because calling the
 * native indexOf for each short line would cost more than comparing the line's bytes.
 */
function countLines(bytes: Uint8Array, at: number, end: number): number {
  let count = 0;
  if (end - at >= MIN_WORD_BYTES) {
    while ((bytes.byteOffset + at) % 4 !== 0) if (bytes[at++] === LF) count++;
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, (end - at) >> 2);
    at += words.length * 4;
    for (let i = 0; i < words.length;) {
      // Four counters of one byte each, which would overflow after 255 words.
      const stop = Math.min(words.length, i + 255);
      let counts = 0;
      while (i < stop) {
        const word = words[i++]! ^ 0x0a0a0a0a;
        // Sets the high bit of each byte that is not 0 (Hacker's Delight, 6-1); exact for every byte.
        const others = ((word & 0x7f7f7f7f) + 0x7f7f7f7f) | word;
        counts = (counts + ((~others >>> 7) & 0x01010101)) | 0;
      }
      count += (counts & 255) + (counts >>> 8 & 255) + (counts >>> 16 & 255) + (counts >>> 24);
    }
  }
  while (at < end) if (bytes[at++] === LF) count++;
  return count;
}

class NoFramer implements Framer {
  readonly #framed = emptyResult();

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const { length } = chunk;
    return length > 0 && most > 0
      ? setResult(this.#framed, length, length, 1)
      : setResult(this.#framed, 0, 0, 0);
  }

  reset(): void {}

  skip(): number {
    return 0;
  }

  get skipping(): boolean {
    return false;
  }

  lengthOf(bytes: Uint8Array): number | undefined {
    return bytes.length || undefined;
  }

  floor(_bytes: Uint8Array, offset: number): number {
    return offset;
  }
}
