/**
 * Where messages begin and end in a stream of bytes: every so many bytes, after each line, or as a
 * length in front of each says. Nothing but that is known of them.
 */
import { formatSize, parseBytes, UnitError } from "../text/units.ts";

/**
 * - `fixed`: messages of `size` bytes;
 * - `line`: a message ends after its `\n`;
 * - `u32`: 4 bytes, big-endian, tell how many follow; a message is both;
 * - `none`: a stream without messages; each chunk counts as one.
 */
export type Frame = { kind: "fixed"; size: number } | { kind: "line" | "u32" | "none" };

/** The longest message that is taken unless told otherwise: what has begun has to be kept. Bytes. */
export const LONGEST_MESSAGE = 64 << 20;

/** A frame as on a command line: `fixed:13`, `line`, `u32`, `none`. Throws a UnitError. */
export function parseFrame(text: string): Frame {
  const [kind, size] = text.trim().split(/:(.*)/s);
  if (size === undefined && (kind === "line" || kind === "u32" || kind === "none")) return { kind };
  if (kind === "fixed" && size !== undefined) {
    try {
      return { kind, size: parseBytes(size, { most: LONGEST_MESSAGE }) };
    } catch (error) {
      if (!(error instanceof UnitError)) throw error;
    }
  }
  throw new UnitError(
    `must be fixed:N (N bytes each, from 1 to ${formatSize(LONGEST_MESSAGE)}), line, u32 or none`,
  );
}

/** A frame as `parseFrame` reads it back. */
export function formatFrame(frame: Frame): string {
  return frame.kind === "fixed" ? `fixed:${formatSize(frame.size)}` : frame.kind;
}

/** The bytes are not framed as was said, or a message is longer than may be. One line. */
export class FrameError extends Error {
  override name = "FrameError";
}

/** What a framer saw in a chunk. Offsets are in the chunk; 0: no message ends there. */
export interface Framed {
  /** The end of the first message that ends in it. */
  first: number;
  /** The end of the last one. */
  end: number;
  messages: number;
  /** What follows `end` cannot be a message; all later chunks are refused as well. */
  error: FrameError | undefined;
}

export interface Framer {
  /**
   * Looks at the bytes that follow those already looked at, for `most` messages at most (default:
   * all): then only those up to `end` have been looked at. The answer is valid until the next call.
   * Never throws.
   */
  push(chunk: Uint8Array, most?: number): Framed;
  /** What is pushed next begins a message. */
  reset(): void;
  /** The length of the message that `bytes` begin with; undefined: it does not end in them. */
  lengthOf(bytes: Uint8Array): number | undefined;
  /**
   * Where the message begins that holds byte `offset`, in bytes which begin with a message: the
   * last beginning at or before it. Without a frame every byte is one.
   */
  floor(bytes: Uint8Array, offset: number): number;
}

/** `maxMessage`: the longest line, or announced length, that is taken; bytes, default 64 MiB. */
export function createFramer(frame: Frame, maxMessage: number = LONGEST_MESSAGE): Framer {
  switch (frame.kind) {
    case "fixed":
      return new FixedFramer(frame.size);
    case "line":
      return new LineFramer(maxMessage);
    case "u32":
      return new LengthFramer(maxMessage);
    case "none":
      return new NoFramer();
  }
}

const emptyAnswer = (): Framed => ({ first: 0, end: 0, messages: 0, error: undefined });

/** Sets the one object that a framer answers with. */
function answer(into: Framed, first: number, end: number, messages: number): Framed {
  into.first = first;
  into.end = end;
  into.messages = messages;
  return into;
}

class FixedFramer implements Framer {
  readonly #size: number;
  readonly #framed = emptyAnswer();
  /** Bytes of the message that has begun. */
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
      return answer(this.#framed, 0, 0, 0);
    }
    const first = this.#size - this.#partial;
    const end = first + (messages - 1) * this.#size;
    this.#partial = messages === most ? 0 : chunk.length - end;
    return answer(this.#framed, first, end, messages);
  }

  reset(): void {
    this.#partial = 0;
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
  readonly #framed = emptyAnswer();
  #partial = 0;

  constructor(longest: number) {
    this.#longest = longest;
  }

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const framed = this.#framed;
    if (framed.error !== undefined) return answer(framed, 0, 0, 0);
    // Only where all of it could be one line too long does each line have to be looked at.
    if (most !== Infinity || this.#partial + chunk.length > this.#longest) {
      return this.#walk(chunk, most);
    }
    const first = chunk.indexOf(LF) + 1;
    if (first === 0) {
      this.#partial += chunk.length;
      return answer(framed, 0, 0, 0);
    }
    const end = chunk.lastIndexOf(LF) + 1;
    this.#partial = chunk.length - end;
    return answer(framed, first, end, end === first ? 1 : 1 + countLines(chunk, first, end));
  }

  #walk(chunk: Uint8Array, most: number): Framed {
    const framed = answer(this.#framed, 0, 0, 0);
    while (framed.messages < most) {
      const end = chunk.indexOf(LF, framed.end) + 1;
      const length = this.#partial + (end === 0 ? chunk.length : end) - framed.end;
      if (length > this.#longest) {
        framed.error = new FrameError(
          `a line is longer than ${formatSize(this.#longest)}, the most that is taken: must the ` +
            "messages be framed by lines?",
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

  lengthOf(bytes: Uint8Array): number | undefined {
    return bytes.indexOf(LF) + 1 || undefined;
  }

  floor(bytes: Uint8Array, offset: number): number {
    return offset === 0 ? 0 : bytes.lastIndexOf(LF, offset - 1) + 1;
  }
}

/** From here on, four bytes at a time are faster. */
const WORTH_WORDS = 128;

/**
 * How many `\n` there are from `at` to `end`, four bytes at a time, whatever the length of a line:
 * a native search for each would cost more than a short line's bytes do.
 */
function countLines(bytes: Uint8Array, at: number, end: number): number {
  let count = 0;
  if (end - at >= WORTH_WORDS) {
    while ((bytes.byteOffset + at) % 4 !== 0) if (bytes[at++] === LF) count++;
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, (end - at) >> 2);
    at += words.length * 4;
    for (let i = 0; i < words.length;) {
      // Four counts of a byte each, which overflow after 255 words.
      const stop = Math.min(words.length, i + 255);
      let counts = 0;
      while (i < stop) {
        const word = words[i++]! ^ 0x0a0a0a0a;
        // The high bit of each byte that is not 0 (Hacker's Delight, 6-1), exact for all of them.
        const others = ((word & 0x7f7f7f7f) + 0x7f7f7f7f) | word;
        counts = (counts + ((~others >>> 7) & 0x01010101)) | 0;
      }
      count += (counts & 255) + (counts >>> 8 & 255) + (counts >>> 16 & 255) + (counts >>> 24);
    }
  }
  while (at < end) if (bytes[at++] === LF) count++;
  return count;
}

/** Bytes of the length in front of a message. */
const HEADER = 4;

class LengthFramer implements Framer {
  readonly #longest: number;
  readonly #framed = emptyAnswer();
  /** Bytes of the header that are known, and what they come to. */
  #headerBytes = 0;
  #length = 0;
  /** Bytes of the body that have not come yet, once the header is whole. */
  #missing = 0;

  constructor(longest: number) {
    this.#longest = longest;
  }

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const framed = answer(this.#framed, 0, 0, 0);
    if (framed.error !== undefined) return framed;
    let at = 0;
    while (framed.messages < most) {
      while (this.#headerBytes < HEADER && at < chunk.length) {
        this.#length = (this.#length << 8 | chunk[at++]!) >>> 0;
        if (++this.#headerBytes === HEADER) this.#missing = this.#length;
      }
      if (this.#headerBytes < HEADER) break;
      if (this.#missing > this.#longest) {
        framed.error = new FrameError(
          `a message announces ${this.#missing} bytes, at most ${formatSize(this.#longest)} are ` +
            "taken: must each begin with its length as 4 bytes, big-endian?",
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
    this.#headerBytes = this.#length = this.#missing = 0;
    this.#framed.error = undefined;
  }

  lengthOf(bytes: Uint8Array): number | undefined {
    const length = announced(bytes, 0);
    return length <= bytes.length ? length : undefined;
  }

  floor(bytes: Uint8Array, offset: number): number {
    let at = 0;
    while (at + announced(bytes, at) <= offset) at += announced(bytes, at);
    return at;
  }
}

/** Bytes of the message at an offset, its header included; Infinity: not even that is there. */
function announced(bytes: Uint8Array, at: number): number {
  if (bytes.length - at < HEADER) return Infinity;
  const high = (bytes[at]! << 8 | bytes[at + 1]!) * 65_536;
  return HEADER + high + (bytes[at + 2]! << 8 | bytes[at + 3]!);
}

class NoFramer implements Framer {
  readonly #framed = emptyAnswer();

  push(chunk: Uint8Array, most: number = Infinity): Framed {
    const { length } = chunk;
    return length > 0 && most > 0
      ? answer(this.#framed, length, length, 1)
      : answer(this.#framed, 0, 0, 0);
  }

  reset(): void {}

  lengthOf(bytes: Uint8Array): number | undefined {
    return bytes.length || undefined;
  }

  floor(_bytes: Uint8Array, offset: number): number {
    return offset;
  }
}
