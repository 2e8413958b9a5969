/**
 * Finds where messages begin and end in a stream of bytes: by a fixed size, by line feeds, or by a
 * length in front of each message. The content of messages does not matter here.
 */
import { formatSize, parseBytes, UnitError } from "../text/units.ts";

/**
 * - `fixed`: messages of `size` bytes;
 * - `line`: a message ends after its `\n`;
 * - `u32`: a message is 4 bytes, big-endian, with the length of its body, and then the body;
 * - `none`: a stream without messages; each chunk counts as one message.
 */
export type Frame = { kind: "fixed"; size: number } | { kind: "line" | "u32" | "none" };

/** The default maximum size of a message, because an incomplete message is kept in memory. Bytes. */
export const LONGEST_MESSAGE = 64 << 20;

/** A frame from the command line: `fixed:13`, `line`, `u32`, `none`. Throws a UnitError. */
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

/** A frame in the form that `parseFrame` accepts. */
export function formatFrame(frame: Frame): string {
  return frame.kind === "fixed" ? `fixed:${formatSize(frame.size)}` : frame.kind;
}

/** The stream does not have the expected frame, or a message is too long. The message is one line. */
export class FrameError extends Error {
  override name = "FrameError";
}

/** What a framer found in a chunk. Offsets are relative to the chunk; 0: no message ends in it. */
export interface Framed {
  /** The end of the first message that ends in the chunk. */
  first: number;
  /** The end of the last one. */
  end: number;
  /** Messages that end in the chunk. */
  messages: number;
  /** The bytes after `end` cannot be a message. Until `reset` or `skip`, later chunks fail as well. */
  error: FrameError | undefined;
}

export interface Framer {
  /**
   * Examines the next bytes of the stream. With `most`, stops after that many messages: then only the
   * bytes up to `end` are consumed, and the next call must pass the rest again. The result is valid
   * until the next call. Never throws.
   */
  push(chunk: Uint8Array, most?: number): Framed;
  /** Starts over: the next chunk begins with a message. */
  reset(): void;
  /**
   * After an error: passes over the message that is too long, whose rest is in `bytes` (what follows
   * `end`) and in later chunks. Returns how many of these bytes belong to it; the next message begins
   * after them. If its end is not among them, `skipping` is true, and `skip` takes the next chunk too.
   */
  skip(bytes: Uint8Array): number;
  readonly skipping: boolean;
  /** The length of the message at the start of `bytes`; undefined if it is incomplete. */
  lengthOf(bytes: Uint8Array): number | undefined;
  /**
   * The start of the message that contains the byte at `offset`; `bytes` must begin with a message.
   * For `none` it is `offset` itself.
   */
  floor(bytes: Uint8Array, offset: number): number;
}

/** `maxMessage`: the longest accepted line, or body length with `u32`; bytes, default 64 MiB. */
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

const emptyResult = (): Framed => ({ first: 0, end: 0, messages: 0, error: undefined });

/** Sets and returns a framer's result, which is reused so that `push` allocates nothing. */
function setResult(into: Framed, first: number, end: number, messages: number): Framed {
  into.first = first;
  into.end = end;
  into.messages = messages;
  return into;
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

/** Size of the length in front of a message: bytes. */
const HEADER = 4;

class LengthFramer implements Framer {
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
    const length = announcedLength(bytes, 0);
    return length <= bytes.length ? length : undefined;
  }

  floor(bytes: Uint8Array, offset: number): number {
    let at = 0;
    while (at + announcedLength(bytes, at) <= offset) at += announcedLength(bytes, at);
    return at;
  }
}

/** Length of the message at `at`, including its header; Infinity if the header is incomplete. */
function announcedLength(bytes: Uint8Array, at: number): number {
  if (bytes.length - at < HEADER) return Infinity;
  const high = (bytes[at]! << 8 | bytes[at + 1]!) * 65_536;
  return HEADER + high + (bytes[at + 2]! << 8 | bytes[at + 3]!);
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
